//! How to use a checkpoint with virtual tokens, engine by engine.

use std::fmt;

use crate::{UnlikelyRow, tokenizer::InFront};

pub(super) struct Readme<'a> {
    pub(super) tokens: usize,
    /// All names, one behind the other.
    pub(super) names: &'a str,
    /// The layout that the adapter was trained with.
    pub(super) template: Option<&'a str>,
    /// What the tokenizer puts in front of every text by itself, its BOS, if that belongs behind virtual tokens.
    pub(super) start: &'a str,
    pub(super) in_front: InFront,
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
        if self.in_front.of_conversations {
            writeln!(
                f,
                "The chat template writes them, so a client that sends messages has nothing to do.\n"
            )?;
        }
        self.transformers(f)?;
        self.llama_cpp(f)?;
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

impl Readme<'_> {
    fn transformers(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let start = self.start;
        writeln!(f, "## transformers and vLLM\n")?;
        match (self.in_front.of_texts, start) {
            (true, _) => writeln!(
                f,
                "The tokenizer's post-processor puts the names in front of every text, so leave them out:\n\n```python\n\
                 tokenizer(text)\n```\n\n\
                 A text that has the names already, such as a conversation that a chat template wrote, must be tokenised \
                 with `add_special_tokens=False`. `apply_chat_template` and vLLM's `/v1/chat/completions` do so by \
                 themselves."
            )?,
            (false, "") => writeln!(
                f,
                "Put the names into the text as they are:\n\n```python\nprompt = names + text\n```"
            )?,
            // Training had the BOS behind the virtual tokens; the tokenizer would put it in front of them.
            (false, start) => writeln!(
                f,
                "Put the names into the text as they are, and the tokenizer's `{start}` behind them, where training had \
                 it:\n\n```python\nprompt = names + \"{start}\" + text\ntokenizer(prompt, add_special_tokens=False)\n```\n\n\
                 (`\"add_special_tokens\": false` in a request to vLLM's `/v1/completions`.)"
            )?,
        }
        writeln!(
            f,
            "\n`skip_special_tokens=True` drops them when a text is decoded.\n"
        )
    }

    fn llama_cpp(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let converter = match self.in_front.of_texts {
            false => "llama.cpp's `convert_hf_to_gguf.py` converts this folder, too.",
            true => {
                "llama.cpp's `convert_hf_to_gguf.py` does not know this folder's tokenizer, because of the post-processor, \
                 and a GGUF file has none: write the names into the text there."
            }
        };
        writeln!(
            f,
            "## llama.cpp and Ollama\n\n`burn-peft export --to gguf` writes this model as a GGUF file. {converter} Special \
             tokens must be parsed: `llama-cli` and `llama-server` do so in prompts. In an Ollama `Modelfile`, write the \
             names in front of `{{{{ .Prompt }}}}` in `TEMPLATE`.\n"
        )?;
        if !self.start.is_empty() {
            writeln!(
                f,
                "The `{}` belongs behind the names here, too. The GGUF file that burn-peft writes has \
                 `tokenizer.ggml.add_bos_token` set to false, so that llama.cpp puts none in front of them.\n",
                self.start
            )?;
        }
        Ok(())
    }
}
