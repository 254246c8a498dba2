//! Turns what an adapter injects into the tensors of a folder, and back.
//!
//! A folder holds what an adapter *injects*. So an encoder is not in it, and a folder of P-Tuning becomes
//! bare virtual tokens, one of Prefix Tuning bare keys and values: the same function, trainable on.

mod biases;
mod table;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, path::Path};

use burn::tensor::backend::Backend;
use burn_peft::{
    Adapter, AnyAdapter, BitFit, Head, Injection, ModuleListing, Prefix, PromptTuning,
};
use burn_peft_decoder::DecoderConfig;

use crate::beft::parse_beft_bias_name;
use crate::config::AdapterConfig;
use crate::fields::shortened;
use crate::folder::AdapterFolder;
use crate::head::HeadTensors;
use crate::method::MethodOptions;
use crate::options::{BeftOptions, PrefixTuningOptions, PromptTuningOptions};
use crate::peft_type::Landing;
use crate::task::CAUSAL_BACKBONE;
use crate::tensors::{AdapterTensor, AdapterTensors, PROMPT_EMBEDDINGS};
use crate::{Error, Problem};

/// Tensor name → the shapes that it may have.
pub(crate) type Shapes = BTreeMap<String, Vec<Vec<usize>>>;

impl MethodOptions {
    /// The method that PEFT has for what lands there, with PEFT's defaults for the rest.
    pub fn of(landing: Landing<'_>) -> Self {
        match landing {
            Landing::Prompt(tokens) => Self::PromptTuning(PromptTuningOptions::new(tokens.clone())),
            Landing::Prefix(tokens) => Self::PrefixTuning(PrefixTuningOptions::new(tokens.clone())),
            Landing::Biases(targets) => Self::Beft(BeftOptions::new(targets.clone())),
        }
    }
}

impl AdapterFolder {
    /// The folder of what `adapter` injects, without a head: [`from_model`](Self::from_model).
    ///
    /// # Errors
    /// [`Error::NothingToSave`] if it injects nothing.
    pub fn from_adapter<B: Backend, A: Adapter<B>>(
        adapter: &A,
        base: &DecoderConfig,
        base_name: Option<&str>,
        describe: impl FnOnce(Landing<'_>) -> MethodOptions,
    ) -> Result<Self, Error> {
        Self::from_model(adapter, None, base, base_name, describe)
    }

    /// The folder of what `adapter` injects and of the head beside it, if there is one. `describe` names the method and its fields:
    /// [`MethodOptions::of`] is a description that PEFT loads. `base_name` is a hub id or a path; `None` for
    /// a base that PEFT cannot load by name.
    ///
    /// PEFT has no folder of a head alone. A head whose adapter injects nothing, a linear probe, stands beside biases that are
    /// zero: PEFT loads them, and they change nothing.
    ///
    /// # Errors
    /// [`Error::NothingToSave`] if it injects nothing and there is no head.
    pub fn from_model<B: Backend, A: Adapter<B>>(
        adapter: &A,
        head: Option<&Head<B>>,
        base: &DecoderConfig,
        base_name: Option<&str>,
        describe: impl FnOnce(Landing<'_>) -> MethodOptions,
    ) -> Result<Self, Error> {
        let mut tensors = AdapterTensors::new();
        let method = match adapter.inject() {
            Injection::Nothing if head.is_none() => return Err(Error::NothingToSave),
            Injection::Nothing => {
                let targets = biases::insert_zeros(base, &mut tensors);
                describe(Landing::Biases(&targets))
            }
            Injection::Prompt(prompt) => {
                let tokens = table::insert_prompt(prompt, base, &mut tensors);
                describe(Landing::Prompt(&tokens))
            }
            Injection::Prefix(prefix) => {
                let tokens = table::insert_prefix(prefix, base, &mut tensors)?;
                describe(Landing::Prefix(&tokens))
            }
            Injection::Biases(layers) => {
                let targets = biases::insert(layers, base, &mut tensors)?;
                describe(Landing::Biases(&targets))
            }
        };
        let folder = Self {
            config: AdapterConfig::new(method, base_name),
            tensors,
        };
        Ok(match head {
            None => folder,
            Some(head) => folder.with_head(HeadTensors::of(head)),
        })
    }

    /// Checks names and shapes of the tensors, those of the head included, and the sizes in the configuration, against
    /// a base model. A head may have any number of outputs where the task does not say it.
    ///
    /// `path` is for the message.
    ///
    /// # Errors
    /// [`Error::DoesNotFit`] with everything that is wrong, at once.
    pub fn check(&self, base: &DecoderConfig, path: &Path) -> Result<(), Error> {
        let mut problems = Vec::new();
        let mut expected = match self.config.method.landing() {
            Landing::Prompt(tokens) => table::expect_prompt(tokens, base, &mut problems),
            Landing::Prefix(tokens) => table::expect_prefix(tokens, base, &mut problems),
            Landing::Biases(targets) => {
                let backbone = self.head_layout().map(|(head, _)| head.backbone);
                let backbone = backbone.unwrap_or(CAUSAL_BACKBONE);
                biases::expect(targets, backbone, base, &mut problems)
            }
        };
        self.expect_head(base, &mut expected, &mut problems);
        self.compare_tensors(expected, problems, path)
    }

    /// The virtual tokens of a prompt, `[tokens, d_model]`, checked against the folder's own configuration; whether
    /// they fit a base, [`check`](Self::check) says.
    ///
    /// # Errors
    /// [`Error::NoPrompt`] of another method, and [`Error::DoesNotFit`].
    pub fn prompt_table(&self, path: &Path) -> Result<&AdapterTensor, Error> {
        let Landing::Prompt(tokens) = self.config.method.landing() else {
            return Err(Error::NoPrompt {
                path: path.into(),
                peft_type: self.config.method.peft_type(),
            });
        };
        let mut problems = Vec::new();
        let table = self.tensors.get(PROMPT_EMBEDDINGS);
        let expected = table::expect_as_configured(tokens, table, &mut problems);
        self.compare_tensors(expected, problems, path)?;
        Ok(table.expect("it was compared with what is expected"))
    }

    /// The modules whose parameters the folder holds, the head last, under PEFT's names. An encoder is in no folder: there
    /// is only the table that it made.
    ///
    /// A tensor that does not belong to the method is named as it stands in the file.
    pub fn modules(&self) -> ModuleListing {
        let method = &self.config.method;
        let (mut modules, belongs): (_, fn(&str) -> bool) = match method.landing() {
            Landing::Prompt(_) | Landing::Prefix(_) => {
                let table = self.tensors.get(PROMPT_EMBEDDINGS);
                let modules = table::listing(method.class(), table);
                (modules, |name| name == PROMPT_EMBEDDINGS)
            }
            Landing::Biases(_) => {
                let biases = self.biases().into_iter();
                let sizes = biases.map(|(layer, module, delta)| (layer, module, delta.len()));
                let modules = ModuleListing::biases(sizes);
                (modules, |name| parse_beft_bias_name(name).is_some())
            }
        };
        let (with_head, of_head) = self.list_head(modules);
        modules = with_head;
        let is_listed = |name: &str| belongs(name) || of_head.iter().any(|known| known == name);
        for (name, tensor) in self.tensors.iter().filter(|(name, _)| !is_listed(name)) {
            modules = modules.parameter(name, tensor.shape());
        }
        modules
    }

    fn compare_tensors(
        &self,
        mut expected: Shapes,
        mut problems: Vec<Problem>,
        path: &Path,
    ) -> Result<(), Error> {
        for (name, tensor) in self.tensors.iter() {
            let (name, found) = (name.to_string(), tensor.shape().to_vec());
            match expected.remove(&name) {
                None => problems.push(Problem::Unexpected { name, found }),
                Some(expected) if !expected.contains(&found) => problems.push(Problem::Shape {
                    name,
                    found,
                    expected,
                }),
                Some(_) => {}
            }
        }
        let missing = expected.into_iter();
        problems.extend(missing.map(|(name, expected)| Problem::Missing { name, expected }));
        if problems.is_empty() {
            return Ok(());
        }
        Err(Error::DoesNotFit {
            path: path.into(),
            trained_on: self.config.base_name().map(shortened),
            problems,
        })
    }
}

/// The adapter that a folder holds, trainable, without its head
/// ([`head_from_folder`](crate::head_from_folder)). `path` is for messages.
///
/// # Errors
/// An adapter that does not fit the base, or has values that are no numbers.
pub fn adapter_from_folder<B: Backend>(
    folder: &AdapterFolder,
    base: &DecoderConfig,
    path: &Path,
    device: &B::Device,
) -> Result<AnyAdapter<B>, Error> {
    folder.check(base, path)?;
    folder.check_values(path)?;
    let table = || table::data(&folder.tensors);
    Ok(match folder.config.method.landing() {
        Landing::Prompt(_) => AnyAdapter::PromptTuning(PromptTuning::from_data(table(), device)),
        Landing::Prefix(_) => AnyAdapter::Prefix(Prefix::from_data(table(), base, device)),
        Landing::Biases(_) => {
            let deltas = biases::data(folder);
            AnyAdapter::BitFit(BitFit::from_data(deltas, base, device))
        }
    })
}
