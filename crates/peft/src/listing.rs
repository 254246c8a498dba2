//! What a model is made of, as PyTorch's `print(model)` shows it, with the shapes of the parameters.
//!
//! ```text
//! PrefixEncoder(
//!   (embedding): Embedding(10, 256)  # weight [10, 256]
//!   (transform): Sequential(
//!     (0): Linear(in_features=256, out_features=256, bias=True)  # weight [256, 256], bias [256]
//!     ...
//! ```
//!
//! A listing is made of sizes alone: no module is built, and no number read.

mod base;

use std::fmt;

use crate::LayerModule;

/// A module and what is in it. Its `Display` is the listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModuleListing {
    class: String,
    /// What the class says of itself, between its parentheses.
    arguments: String,
    /// Its own parameters, not those of its children.
    parameters: Vec<(String, Vec<usize>)>,
    note: Option<&'static str>,
    children: Vec<(String, Self)>,
}

/// Parameters that still fit on the line of their module.
const A_LINE: usize = 4;

impl ModuleListing {
    /// A module of this class, with nothing in it yet.
    #[must_use]
    pub fn new(class: impl Into<String>) -> Self {
        Self {
            class: class.into(),
            arguments: String::new(),
            parameters: Vec::new(),
            note: None,
            children: Vec::new(),
        }
    }

    /// Nothing that trains.
    #[must_use]
    pub fn nothing() -> Self {
        Self::new("NoAdapter")
    }

    /// A table of `rows` vectors.
    #[must_use]
    pub fn embedding([rows, width]: [usize; 2]) -> Self {
        Self::new("Embedding")
            .arguments(format!("{rows}, {width}"))
            .parameter("weight", [rows, width])
    }

    /// A linear layer.
    #[must_use]
    pub fn linear([d_in, d_out]: [usize; 2], bias: bool) -> Self {
        let listing =
            linear_without_parameters([d_in, d_out], bias).parameter("weight", [d_out, d_in]);
        match bias {
            true => listing.parameter("bias", [d_out]),
            false => listing,
        }
    }

    /// Changes of biases, by layer and place. The biases of a layer must follow each other.
    #[must_use]
    pub fn biases(biases: impl IntoIterator<Item = (usize, LayerModule, usize)>) -> Self {
        let mut layers: Vec<(String, Self)> = Vec::new();
        for (layer, kind, width) in biases {
            let name = layer.to_string();
            if layers.last().is_none_or(|(last, _)| *last != name) {
                layers.push((name, Self::new("BiasDeltas")));
            }
            if let Some((_, deltas)) = layers.last_mut() {
                let bias = Self::new("Bias").arguments(width.to_string());
                let bias = bias.parameter("bias", [width]);
                deltas.children.push((kind.name().into(), bias));
            }
        }
        let list = Self {
            children: layers,
            ..Self::new("ModuleList")
        };
        Self::new("BitFit").child("layers", list)
    }

    /// Children named by their places, `0`, `1`, and so on.
    pub(crate) fn sequence(class: &str, children: impl IntoIterator<Item = Self>) -> Self {
        let children = children.into_iter().enumerate();
        Self {
            children: children
                .map(|(place, child)| (place.to_string(), child))
                .collect(),
            ..Self::new(class)
        }
    }

    pub(crate) fn arguments(mut self, arguments: impl Into<String>) -> Self {
        self.arguments = arguments.into();
        self
    }

    /// With a parameter of its own.
    #[must_use]
    pub fn parameter(mut self, name: impl Into<String>, shape: impl Into<Vec<usize>>) -> Self {
        self.parameters.push((name.into(), shape.into()));
        self
    }

    /// With a word behind its line.
    #[must_use]
    pub fn note(mut self, note: &'static str) -> Self {
        self.note = Some(note);
        self
    }

    /// With a module in it.
    #[must_use]
    pub fn child(mut self, name: impl Into<String>, child: Self) -> Self {
        self.children.push((name.into(), child));
        self
    }

    /// Numbers in all its parameters; sizes out of reach give the largest number.
    #[must_use]
    pub fn num_parameters(&self) -> usize {
        let own = self.parameters.iter().map(|(_, shape)| {
            let sizes = shape.iter().copied();
            sizes.fold(1, usize::saturating_mul)
        });
        let children = self.children.iter();
        let children = children.map(|(_, child)| child.num_parameters());
        own.chain(children).fold(0, usize::saturating_add)
    }

    fn write(&self, f: &mut fmt::Formatter<'_>, head: &str, depth: usize) -> fmt::Result {
        let indent = "  ".repeat(depth);
        write!(f, "{indent}{head}{}({}", self.class, self.arguments)?;
        if self.children.is_empty() {
            write!(f, ")")?;
        }
        let shapes: Vec<String> = self
            .parameters
            .iter()
            .map(|(name, shape)| format!("{name} {shape:?}"))
            .collect();
        let (behind, below) = match shapes.len() <= A_LINE {
            true => (shapes.join(", "), &[][..]),
            false => (String::new(), &shapes[..]),
        };
        let behind = [behind.as_str(), self.note.unwrap_or_default()];
        let behind: Vec<&str> = behind.into_iter().filter(|part| !part.is_empty()).collect();
        if !behind.is_empty() {
            write!(f, "  # {}", behind.join(", "))?;
        }
        writeln!(f)?;
        for line in below.chunks(A_LINE) {
            writeln!(f, "{indent}  # {}", line.join(", "))?;
        }
        if self.children.is_empty() {
            return Ok(());
        }
        let mut rest = &self.children[..];
        while let Some((name, child)) = rest.first() {
            let repeated = run_length(rest);
            let head = match (repeated, name.parse::<usize>()) {
                (2.., Ok(first)) => format!("({first}-{}): {repeated} x ", first + repeated - 1),
                _ => format!("({name}): "),
            };
            child.write(f, &head, depth + 1)?;
            rest = &rest[repeated..];
        }
        writeln!(f, "{indent})")
    }
}

/// Every line ends in a newline.
impl fmt::Display for ModuleListing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write(f, "", 0)
    }
}

/// How many of the first children are the same module at places that follow each other.
fn run_length(children: &[(String, ModuleListing)]) -> usize {
    let place = |index: usize| children[index].0.parse::<usize>();
    let Ok(first) = place(0) else {
        return 1;
    };
    (0..children.len())
        .take_while(|&i| place(i) == Ok(first + i) && children[i].1 == children[0].1)
        .count()
}

fn linear_without_parameters([d_in, d_out]: [usize; 2], bias: bool) -> ModuleListing {
    let bias = if bias { "True" } else { "False" };
    ModuleListing::new("Linear").arguments(format!(
        "in_features={d_in}, out_features={d_out}, bias={bias}"
    ))
}

#[cfg(test)]
mod tests;
