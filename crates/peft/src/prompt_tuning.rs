//! Prompt Tuning: virtual tokens in front of the input, learned directly (Lester et al. 2021).

use burn_peft_decoder::DecoderConfig;

use crate::{
    AdapterPath, Error, ModuleListing,
    method::{Method, RateBasis, StartsFrom, without_effect},
    virtual_tokens::{DEFAULT_TOKENS, check_at_least_1},
};

crate::options! {
    /// Options of Prompt Tuning, under PEFT's names.
    pub struct PromptTuningConfig {
        /// Length of the prompt, in virtual tokens.
        pub num_virtual_tokens: Option<usize> = None,
            shown as "the template's, else the text's with `\"TEXT\"`, else 20",
            source "Lester et al. 2021, §3.2: beyond 20, quality hardly rises";
        /// What the prompt starts as.
        pub prompt_tuning_init: PromptTuningInit = PromptTuningInit::SampleVocab,
            source "Lester et al. 2021, figure 3b. PEFT has `RANDOM`";
        /// The text of `"TEXT"`. Its tokens are cut or repeated to a given length.
        pub prompt_tuning_init_text: Option<String> = None;
        /// The labels of `"CLASS_LABELS"`.
        pub prompt_tuning_init_labels: Vec<String> = Vec::new();
        /// How `"RANDOM"` draws.
        pub random_init: RandomInit = RandomInit::Scaled,
            source "this project";
        /// An adapter to start from (`PROMPT_TUNING` or `P_TUNING`), in place of `prompt_tuning_init`: its folder, or a
        /// hub id.
        pub init_from: Option<AdapterPath> = None;
    }
}

crate::options! {
    /// PEFT's `prompt_tuning_init`, and one more of Lester et al.
    pub enum PromptTuningInit {
        /// Random numbers, as `random_init` says.
        Random = "RANDOM",
        /// The embeddings of `prompt_tuning_init_text`.
        Text = "TEXT",
        /// Embeddings of random tokens.
        // Lester et al. 2021, §3.2 "sampled vocabulary".
        SampleVocab = "SAMPLE_VOCAB",
        /// One virtual token for each label, the mean of its tokens' embeddings; the rest as `"SAMPLE_VOCAB"`.
        // Lester et al. 2021, §3.2 "class label". PEFT has no such start.
        ClassLabels = "CLASS_LABELS",
    }
}

crate::options! {
    /// The spread of random virtual tokens.
    pub enum RandomInit {
        /// A normal distribution with the embedding table's own mean square.
        Scaled = "scaled",
        /// PEFT's N(0, 1), about 50 times the spread of Qwen2's embeddings.
        Normal = "normal",
    }
}

impl Method for PromptTuningConfig {
    fn default_learning_rate(&self, base: RateBasis<'_>) -> f64 {
        // docs/results.md: 3e-2 to 1e-1 is best with 30 layers, 1e-1 to 3e-1 with 5, on tables of almost one spread. Where the
        // spread is another, a step is to be the same share of it: on Llama 3.2's, a seventh of these, PEFT's comparison
        // trains at 1e-3 and does not at 1e-4 (peft#2815).
        9.0 * base.embedding_rms / base.layers()
    }

    fn validate(&self) -> Result<(), Error> {
        check_at_least_1("num_virtual_tokens", self.num_virtual_tokens)?;
        let text = self.prompt_tuning_init_text.as_deref().unwrap_or_default();
        let (labels, count) = (
            self.prompt_tuning_init_labels.len(),
            self.num_virtual_tokens(),
        );
        match self.prompt_tuning_init {
            _ if self.init_from.is_some() => Ok(()),
            PromptTuningInit::Text if text.is_empty() => Err(Error::option(
                "prompt_tuning_init_text",
                "`prompt_tuning_init = \"TEXT\"` needs a text",
            )),
            PromptTuningInit::ClassLabels if !(1..=count).contains(&labels) => Err(Error::option(
                "prompt_tuning_init_labels",
                format!("{labels} labels; `CLASS_LABELS` needs 1 to {count}, one a virtual token"),
            )),
            _ => Ok(()),
        }
    }

    fn modules(&self, base: &DecoderConfig) -> ModuleListing {
        let table = [self.num_virtual_tokens(), base.hidden_size];
        ModuleListing::new("PromptEmbedding").child("embedding", ModuleListing::embedding(table))
    }

    fn num_virtual_tokens(&self) -> usize {
        self.num_virtual_tokens.unwrap_or(DEFAULT_TOKENS)
    }

    fn num_virtual_tokens_mut(&mut self) -> Option<&mut Option<usize>> {
        Some(&mut self.num_virtual_tokens)
    }

    fn init_from_mut(&mut self) -> Option<&mut AdapterPath> {
        self.init_from.as_mut()
    }

    fn starts_from(&self) -> StartsFrom<'_> {
        let text = self.prompt_tuning_init_text.as_deref();
        match self.prompt_tuning_init {
            PromptTuningInit::ClassLabels => StartsFrom::Labels(&self.prompt_tuning_init_labels),
            init => StartsFrom::text_if(init == PromptTuningInit::Text, text),
        }
        .or_folder(self.init_from.as_ref())
    }

    fn warnings(&self) -> Vec<String> {
        let text = self.prompt_tuning_init_text.is_some();
        let labels = !self.prompt_tuning_init_labels.is_empty();
        let spread = self.random_init != RandomInit::Scaled;
        let mut warnings = Vec::new();
        for (option, is_set, init) in [
            ("prompt_tuning_init_text", text, PromptTuningInit::Text),
            (
                "prompt_tuning_init_labels",
                labels,
                PromptTuningInit::ClassLabels,
            ),
            ("random_init", spread, PromptTuningInit::Random),
        ] {
            let unused = is_set && self.prompt_tuning_init != init;
            let needed = format!("prompt_tuning_init = \"{}\"", init.name());
            warnings.extend(without_effect(option, unused, &needed));
        }
        let random = self.prompt_tuning_init == PromptTuningInit::Random;
        if random && self.random_init == RandomInit::Normal && self.init_from.is_none() {
            // PEFT's comparison on MetaMathQA: 23.4 % against 34.3 % with vocabulary rows.
            warnings.push(
                "prompts drawn from N(0, 1) are known to train badly; \
                 `prompt_tuning_init = \"SAMPLE_VOCAB\"` starts from embeddings"
                    .into(),
            );
        }
        warnings
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_that_nothing_uses_are_said() {
        let config = PromptTuningConfig {
            prompt_tuning_init_text: Some("classify".into()),
            ..PromptTuningConfig::default()
        };
        let [warning] = &config.warnings()[..] else {
            panic!("one warning")
        };
        assert!(warning.contains("prompt_tuning_init_text") && warning.contains("TEXT"));
        let used = PromptTuningConfig {
            prompt_tuning_init: PromptTuningInit::Text,
            ..config
        };
        assert!(used.warnings().is_empty());
    }

    #[test]
    fn an_adapter_that_starts_from_a_folder_needs_no_text() {
        let config = PromptTuningConfig {
            prompt_tuning_init: PromptTuningInit::Text,
            init_from: Some("adapter".into()),
            ..PromptTuningConfig::default()
        };
        config.validate().unwrap();
    }
}
