//! `inspect --biases`: how far each bias of a BitFit adapter moved, as a table and as a picture.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use anyhow::{Result, bail};
use burn_peft::LayerModule;
use burn_peft_format::{AdapterFolder, BiasMovement};

use super::shared::display;

mod picture;

/// Arguments of `inspect` for BitFit adapters.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Show how far each bias of a BitFit adapter moved: the mean absolute change, by layer and module.
    #[arg(long)]
    biases: bool,
    /// Draw the movement as a heat map.
    #[arg(long, value_name = "FILE.svg", requires = "biases")]
    picture: Option<PathBuf>,
}

impl Args {
    /// What the flags ask of an adapter folder, if they ask anything. Draws the picture.
    pub(crate) fn report(
        &self,
        folder: &AdapterFolder,
        path: &Path,
    ) -> Result<Option<Vec<BiasMovement>>> {
        if !self.biases {
            return Ok(None);
        }
        let movement = folder.bias_movement();
        if movement.is_empty() {
            bail!(
                "{}: --biases is for bitfit adapters, this one is {}",
                display(path),
                folder.config.method.name()
            );
        }
        if let Some(file) = &self.picture {
            let base = folder.config.base_model_name_or_path.as_deref();
            let svg = picture::draw(&Grid::new(&movement), base)?;
            burn_peft_files::write(file, svg.as_bytes())?;
        }
        Ok(Some(movement))
    }

    /// Refuses the flags where there is no adapter.
    pub(crate) fn refuse_model(&self, path: &Path) -> Result<()> {
        if self.biases {
            bail!(
                "{}: --biases is for bitfit adapters, this is a model",
                display(path)
            );
        }
        Ok(())
    }
}

/// The movement, layer by kind.
struct Grid {
    /// Layers 0 to the last that has a bias here.
    layers: usize,
    /// Kinds that some layer has, attention first.
    kinds: Vec<LayerModule>,
    cells: BTreeMap<(usize, LayerModule), f64>,
}

impl Grid {
    fn new(movement: &[BiasMovement]) -> Self {
        let cells: BTreeMap<_, _> = movement
            .iter()
            .map(|moved| ((moved.layer, moved.kind), moved.mean_abs_change))
            .collect();
        Self {
            layers: cells.keys().map(|(layer, _)| layer + 1).max().unwrap_or(0),
            kinds: LayerModule::ALL
                .into_iter()
                .filter(|kind| cells.keys().any(|(_, known)| known == kind))
                .collect(),
            cells,
        }
    }

    /// None where the layer has no such bias.
    fn cell(&self, layer: usize, kind: LayerModule) -> Option<f64> {
        self.cells.get(&(layer, kind)).copied()
    }
}

/// The table for people.
pub(crate) fn to_text(movement: &[BiasMovement]) -> String {
    let grid = Grid::new(movement);
    let width = |kind: &LayerModule| kind.name().len().max(8);
    let mut text = String::from("mean absolute change of each bias\nlayer");
    for kind in &grid.kinds {
        text += &format!("  {:>1$}", kind.name(), width(kind));
    }
    text.push('\n');
    for layer in 0..grid.layers {
        text += &format!("{layer:>5}");
        for kind in &grid.kinds {
            let value = match grid.cell(layer, *kind) {
                Some(value) => format!("{value:.2e}"),
                None => "-".into(),
            };
            text += &format!("  {value:>0$}", width(kind));
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moved(layer: usize, kind: LayerModule, mean_abs_change: f64) -> BiasMovement {
        BiasMovement {
            layer,
            kind,
            mean_abs_change,
        }
    }

    #[test]
    fn the_table_has_a_row_a_layer_and_a_column_a_kind() {
        let text = to_text(&[
            moved(0, LayerModule::QProj, 0.00125),
            moved(2, LayerModule::QProj, 0.5),
            moved(2, LayerModule::InputLayernorm, 0.0),
        ]);
        assert_eq!(
            text,
            "mean absolute change of each bias\n\
             layer    q_proj  input_layernorm\n\
             \u{20}   0   1.25e-3                -\n\
             \u{20}   1         -                -\n\
             \u{20}   2   5.00e-1           0.00e0\n"
        );
    }
}
