//! How to use a checkpoint with virtual tokens, engine by engine.

use std::fmt;

use crate::UnlikelyRow;

pub(super) struct Readme<'a> {
    pub(super) tokens: usize,
    /// All names, one behind the other.
    pub(super) names: &'a str,
    /// The layout that the adapter was trained with.
    pub(super) template: Option<&'a str>,
    pub(super) in_chat_template: bool,
    pub(super) unlikely: &'a UnlikelyRow,
}

impl fmt::Display for Readme<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { tokens, names, .. } = self;
        writeln!(f, "# A model with {tokens} virtual tokens\n")?;
        writeln!(
            f,
            "This is a plain checkpoint. Its prompt was trained by burn-peft and stands in {tokens} rows of the embedding \
             table, under the names of special tokens:\n\n```text\n{names}\n```\n"
        )?;
        match self.template {
            None => writeln!(
                f,
                "They belong in front of every text. A text without them gets the bare model.\n"
            )?,
            Some(template) => writeln!(
                f,
                "The prompt was trained with this layout, in which each `{{prompt:N}}` stands for the next N names, in \
                 order. A text in another layout gets other answers.\n\n```text\n{template}\n```\n"
            )?,
        }
        if self.in_chat_template {
            writeln!(
                f,
                "The chat template writes them, so a client that sends messages has nothing to do.\n"
            )?;
        }
        writeln!(
            f,
            "## transformers and vLLM\n\nPut the names into the text as they are; `skip_special_tokens=True` drops them \
             when a text is decoded.\n\n```python\nprompt = names + text\n```\n"
        )?;
        writeln!(
            f,
            "## llama.cpp and Ollama\n\nConvert the folder to GGUF, and have special tokens parsed: `llama-cli` and \
             `llama-server` do so in prompts. In an Ollama `Modelfile`, write the names in front of `{{{{ .Prompt }}}}` \
             in `TEMPLATE`.\n"
        )?;
        writeln!(
            f,
            "## Can the model write these tokens?\n\nTheir rows of the output head point away from the states in which \
             the model ends. In {} states of texts that it wrote itself, the largest probability of one of them was \
             1e{:.0}. `generation_config.json` also names them in `suppress_tokens`.",
            self.unlikely.states,
            self.unlikely.largest_log_probability / std::f64::consts::LN_10
        )
    }
}
