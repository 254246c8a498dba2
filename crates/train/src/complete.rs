//! Letting a model write the completions of a file, to be scored.

use std::{borrow::Cow, ops::ControlFlow};

use burn::tensor::{Int, Tensor, TensorData};
use burn_peft::{Adapter, Inputs, PeftModel, Placement};
use burn_peft_data::{Prompt, Row, Rows, Template, TextTokenizer};
use burn_peft_decoder::{AttentionMask, Checkpoint, GenerationOptions};
use burn_peft_ops::Ops;

use crate::{Error, Ranks, scoring::Scored};

/// A row with a prompt, and the completion that it should get.
#[derive(Debug, Clone)]
pub struct PromptRow<'a> {
    /// The row's own prompt, whatever a template puts around it.
    pub prompt: Cow<'a, str>,
    /// What should be written.
    pub reference: &'a str,
    row: &'a Row,
    template: Option<&'a Template>,
}

impl PromptRow<'_> {
    /// What the model is given.
    fn ids(&self, tokenizer: &TextTokenizer) -> Result<Prompt, Error> {
        Ok(match self.template {
            Some(template) => template.prompt_ids(self.row, tokenizer)?,
            None => tokenizer.encode_start(&self.prompt)?.into(),
        })
    }
}

/// The prompts and references of rows that have them: prompt/completion and instruction rows.
/// `None` for rows of other formats.
pub fn prompts_and_references<'a>(
    rows: &'a Rows,
    template: Option<&'a Template>,
) -> Option<Vec<PromptRow<'a>>> {
    prompts_of(rows.rows(), template)
}

/// The same of some of a file's rows.
pub(crate) fn prompts_of<'a>(
    rows: &'a [(usize, Row)],
    template: Option<&'a Template>,
) -> Option<Vec<PromptRow<'a>>> {
    rows.iter()
        .map(|(_, row)| {
            let (prompt, reference) = row.prompt_and_answer()?;
            Some(PromptRow {
                prompt,
                reference,
                row,
                template,
            })
        })
        .collect()
}

/// Ids that end a text: the generation config's, and those with which training ends one whatever that file says. Rows
/// end with the tokenizer's eos, and a turn of a conversation with the chat template's end of turn.
pub fn stop_ids(checkpoint: &Checkpoint, tokenizer: &TextTokenizer) -> Vec<u32> {
    let mut ids = checkpoint.generation_config().stop_ids.clone();
    for id in [tokenizer.eos_id(), tokenizer.end_of_turn_id()] {
        ids.extend(id.filter(|id| !ids.contains(id)));
    }
    ids
}

/// Completes each row greedily, `batch_size` at a time, up to twice the tokens of the longest
/// reference. `stop_ids` end a text; `progress` is called with the prompts done so far. Where a prompt
/// has no token there is nothing to continue, and where it fills the model's longest sequence there is no room; the
/// text is empty then.
///
/// # Errors
/// A text that cannot be tokenised, or a row that lacks a field of the template.
pub fn complete<B: Ops, A: Adapter<B>>(
    model: &PeftModel<B, A>,
    tokenizer: &TextTokenizer,
    rows: &[PromptRow<'_>],
    batch_size: usize,
    stop_ids: &[u32],
    progress: &mut dyn FnMut(usize),
) -> Result<Vec<Scored>, Error> {
    let found = complete_until(
        model,
        tokenizer,
        rows,
        batch_size,
        stop_ids,
        &Ranks::alone(),
        progress,
        &|| false,
    )?;
    Ok(found.unwrap_or_else(|| unreachable!("nothing stops it")))
}

/// [`complete`], with the batches dealt out among `ranks`, which all get all texts; `None` where `stop` said so to one of
/// them before all rows were done.
#[expect(
    clippy::too_many_arguments,
    reason = "what `complete` has, and three callers"
)]
pub(crate) fn complete_until<B: Ops, A: Adapter<B>>(
    model: &PeftModel<B, A>,
    tokenizer: &TextTokenizer,
    rows: &[PromptRow<'_>],
    batch_size: usize,
    stop_ids: &[u32],
    ranks: &Ranks,
    progress: &mut dyn FnMut(usize),
    stop: &dyn Fn() -> bool,
) -> Result<Option<Vec<Scored>>, Error> {
    let mut longest = 0;
    for row in rows {
        longest = longest.max(tokenizer.encode(row.reference)?.len());
    }
    let options = GenerationOptions::greedy(2 * longest.max(1), stop_ids.to_vec());
    let mut texts = Vec::with_capacity(rows.len());
    let mut stopped = false;
    let device = model.base().device();
    let positions = model.base().config().max_position_embeddings;
    let room = positions.saturating_sub(model.adapter().inject().num_virtual_tokens());
    let model = model.injected();
    for (number, chunk) in rows.chunks(batch_size).enumerate() {
        stopped = stop();
        if stopped {
            break;
        }
        if !ranks.has(number) {
            continue;
        }
        let mut prompts = chunk
            .iter()
            .map(|row| row.ids(tokenizer))
            .collect::<Result<Vec<_>, _>>()?;
        let goes_on = |prompt: &Prompt| (1..room).contains(&prompt.input_ids.len());
        let go_on: Vec<bool> = prompts.iter().map(goes_on).collect();
        prompts.retain(goes_on);
        let mut generated = Vec::new();
        if !prompts.is_empty() {
            let inputs = left_padded::<B>(&prompts, &device);
            let on_token = &mut |_, _| ControlFlow::Continue(());
            generated = model.generate(inputs, &options, on_token);
        }
        let mut generated = generated.into_iter();
        let mut own = Vec::with_capacity(chunk.len());
        for goes_on in go_on {
            let token_ids = match goes_on {
                true => generated.next().map_or(Vec::new(), |row| row.token_ids),
                false => Vec::new(),
            };
            own.push(tokenizer.decode(&token_ids, true)?);
        }
        texts.push(own);
        progress(number * batch_size + chunk.len());
    }
    if ranks.any(stopped) {
        return Ok(None);
    }
    let texts = ranks.each(texts).into_iter().flatten();
    let scored = rows.iter().zip(texts).map(|(row, text)| Scored {
        prompt: row.prompt.clone().into_owned(),
        reference: row.reference.to_owned(),
        text,
    });
    Ok(Some(scored.collect()))
}

/// Prompts of different lengths as one batch whose rows end together. It has a cell at least, so that a row may
/// be virtual tokens alone.
///
/// # Panics
/// Only some of the prompts say where the virtual tokens stand.
pub fn left_padded<B: Ops>(prompts: &[Prompt], device: &B::Device) -> Inputs<B> {
    let lengths = prompts.iter().map(|prompt| prompt.input_ids.len());
    let seq = lengths.max().unwrap_or(0).max(1);
    let mut ids: Vec<i64> = Vec::with_capacity(prompts.len() * seq);
    let mut mask = Vec::with_capacity(prompts.len() * seq);
    let mut placement = Vec::with_capacity(prompts.len());
    for prompt in prompts {
        let padding = seq - prompt.input_ids.len();
        ids.extend(std::iter::repeat_n(0, padding));
        ids.extend(prompt.input_ids.iter().map(|id| i64::from(*id)));
        mask.extend((0..seq).map(|cell| cell >= padding));
        let moved = |before: &Vec<usize>| before.iter().map(|index| index + padding).collect();
        placement.push(prompt.placement.as_ref().map(moved));
    }
    let ids = TensorData::new(ids, [prompts.len(), seq]);
    Inputs {
        input_ids: Tensor::<B, 2, Int>::from_data(ids, device),
        attention_mask: AttentionMask::new(prompts.len(), seq, mask),
        placement: Placement::from_rows(placement),
    }
}

#[cfg(test)]
mod tests {
    use burn_flex::Flex;
    use burn_peft_data::{instruction_prompt, parse_rows};

    use super::*;

    fn prompt(ids: &[u32], placement: Option<Vec<usize>>) -> Prompt {
        Prompt {
            input_ids: ids.to_vec(),
            placement,
        }
    }

    fn padded(prompts: &[Prompt]) -> Inputs<Flex> {
        left_padded(prompts, &Default::default())
    }

    #[test]
    fn virtual_tokens_move_with_the_ids_they_stand_beside() {
        let inputs = padded(&[
            prompt(&[1, 2, 3], Some(vec![0, 3])),
            prompt(&[4], Some(vec![0, 1])),
        ]);
        let ids: Vec<i64> = inputs.input_ids.to_data().iter::<i64>().collect();
        assert_eq!(ids, [1, 2, 3, 0, 0, 4]);
        assert_eq!(inputs.attention_mask.row(1), [false, false, true]);
        let cells = vec![vec![0, 3], vec![2, 3]];
        assert_eq!(inputs.placement, Placement::Cells(cells));
    }

    #[test]
    fn prompts_that_say_nothing_have_their_virtual_tokens_in_front() {
        let inputs = padded(&[vec![1, 2].into(), vec![3].into()]);
        assert_eq!(inputs.placement, Placement::Front);
    }

    #[test]
    fn a_row_keeps_its_own_prompt_whatever_the_template_puts_around_it() {
        let row = r#"{"instruction":"add","input":"1 2","output":"3"}"#;
        let rows = parse_rows("train.jsonl", row).unwrap();
        let template = Template::parse("Q{prompt:2}{instruction}{output}").unwrap();
        for template in [None, Some(&template)] {
            let rows = prompts_and_references(&rows, template).unwrap();
            assert_eq!(rows[0].prompt, instruction_prompt("add", Some("1 2")));
            assert_eq!(rows[0].reference, "3");
        }
        let texts = parse_rows("train.jsonl", r#"{"text":"a"}"#).unwrap();
        assert!(prompts_and_references(&texts, None).is_none());
    }
}
