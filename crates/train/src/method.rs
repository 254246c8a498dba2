//! What a run needs to know of a method.

use burn::tensor::backend::Backend;
use burn_peft::{Adapter, Head, RateBasis};
use burn_peft_data::TextTokenizer;
use burn_peft_decoder::{Decoder, DecoderConfig};
use burn_peft_format::{Landing, MethodOptions};
use burn_peft_ops::Ops;
use serde::Serialize;

use crate::Error;

/// What a new adapter is made from.
#[derive(Debug)]
#[non_exhaustive]
pub struct Start<'a, B: Backend> {
    /// The base that it is for.
    pub base: &'a Decoder<B>,
    /// The base's tokenizer.
    pub tokenizer: &'a TextTokenizer,
    /// The run's seed.
    pub seed: u64,
}

/// A fine-tuning method, as [`run_method`](crate::run_method) trains it.
///
/// [`MethodConfig`](burn_peft::MethodConfig) implements it for the methods of `burn-peft`. Implement it for a type of
/// your own to train an [`Adapter`] of your own; `examples/custom_adapter.rs` does.
pub trait Method {
    /// The module that is trained.
    type Adapter<B: Backend>: Adapter<B> + 'static;

    /// The method's name, as `run.toml` records it.
    fn name(&self) -> &str;

    /// A new adapter.
    ///
    /// Every random choice must follow from [`Start::seed`], so that a run can be repeated. Before the call the run
    /// seeds the backend's own generator with it, the one that `Tensor::random` draws from.
    ///
    /// # Errors
    /// Whatever keeps it from being made, such as a text that cannot be tokenised.
    fn init<B: Ops>(&self, start: Start<'_, B>) -> Result<Self::Adapter<B>, Error>;

    /// The head to start from in place of a new one.
    ///
    /// # Errors
    /// One that cannot be used.
    fn head<B: Ops>(&self, _base: &Decoder<B>) -> Result<Option<Head<B>>, Error> {
        Ok(None)
    }

    /// The learning rate where `[train]` gives none.
    fn default_learning_rate(&self, _base: RateBasis<'_>) -> f64 {
        1e-3
    }

    /// Virtual tokens of the adapter, each of which takes one of the base's positions.
    fn num_virtual_tokens(&self) -> usize {
        0
    }

    /// The parameters that an adapter for `base` trains, where that is known before it is made. 0 is refused where no
    /// head trains either.
    fn num_trainable(&self, _base: &DecoderConfig) -> Option<usize> {
        None
    }

    /// Checks the method against a base before its weights are read.
    ///
    /// # Errors
    /// What does not fit.
    fn check_base(&self, _base: &DecoderConfig) -> Result<(), Error> {
        Ok(())
    }

    /// Checks that the adapter can be trained in so many bytes of memory, before anything is made.
    ///
    /// # Errors
    /// What makes it too large.
    fn check_memory(&self, _base: &DecoderConfig, _memory: u64) -> Result<(), Error> {
        Ok(())
    }

    /// What is known to train badly at this learning rate, a line each.
    fn warnings(&self) -> Vec<String> {
        Vec::new()
    }

    /// How the adapter's folder describes what the adapter injects. By default a prompt is saved as `PROMPT_TUNING`, a
    /// prefix as `PREFIX_TUNING` and biases as `BEFT`, which PEFT loads. `base_name` is the base's hub id or path.
    fn describe(&self, landing: Landing<'_>, _base_name: Option<&str>) -> MethodOptions {
        MethodOptions::of(landing)
    }

    /// `[method]` of the `run.toml` that the run writes, with the values that were used on `base`; by default the
    /// method's name alone.
    fn settings(&self, _base: &DecoderConfig) -> impl Serialize {
        Name { name: self.name() }
    }
}

#[derive(Serialize)]
struct Name<'a> {
    #[serde(rename = "type")]
    name: &'a str,
}

#[cfg(test)]
mod tests {
    use burn_peft::{MethodConfig, NoAdapter};
    use burn_peft_decoder::DecoderConfig;
    use burn_peft_format::VirtualTokenOptions;

    use super::*;
    use crate::RunConfig;

    struct Own;

    fn base() -> DecoderConfig {
        DecoderConfig::named("qwen2.5-0.5b").unwrap()
    }

    impl Method for Own {
        type Adapter<B: Backend> = NoAdapter<B>;

        fn name(&self) -> &str {
            "own"
        }

        fn init<B: Ops>(&self, _start: Start<'_, B>) -> Result<NoAdapter<B>, Error> {
            Ok(NoAdapter::default())
        }
    }

    #[test]
    fn run_toml_names_a_method_of_ones_own() {
        let text = RunConfig::default()
            .to_toml_of(&Own.settings(&base()))
            .unwrap();
        assert!(text.contains("[method]\ntype = \"own\"\n\n"), "{text}");
        let error = RunConfig::parse(&text, "run.toml", &[]).unwrap_err();
        assert!(matches!(error, Error::UnknownMethod { .. }), "{error}");
    }

    #[test]
    fn run_toml_has_every_option_of_a_method_of_burn_peft() {
        let config = RunConfig::default();
        let text = config.to_toml_of(&config.method.settings(&base())).unwrap();
        let read = RunConfig::parse(&text, "run.toml", &[]).unwrap();
        assert_eq!(read.method, config.method.filled_in(&base()));
        assert!(text.contains("num_virtual_tokens = 20"), "{text}");
    }

    #[test]
    fn what_a_method_does_not_say_follows_from_where_it_lands() {
        let tokens = VirtualTokenOptions::prompt(3, &base());
        let found = Own.describe(Landing::Prompt(&tokens), None);
        assert_eq!(found.peft_type(), "PROMPT_TUNING");
        let found = Own.describe(Landing::Prefix(&tokens), None);
        assert_eq!(found.peft_type(), "PREFIX_TUNING");
        // A method of burn-peft with an adapter that lands elsewhere is described by where it lands, too.
        let method = MethodConfig::default();
        let found = Method::describe(&method, Landing::Prefix(&tokens), None);
        assert_eq!(found.peft_type(), "PREFIX_TUNING");
    }
}
