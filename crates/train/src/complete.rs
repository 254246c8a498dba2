//! Letting a model write the completions of a file, to be scored.

use std::ops::ControlFlow;

use burn::tensor::{Int, Tensor, TensorData};
use burn_peft::{Adapter, Inputs, PeftModel, Placement};
use burn_peft_data::{Row, Rows, TextTokenizer, instruction_prompt};
use burn_peft_ops::Ops;
use burn_qwen2::{AttentionMask, Checkpoint, GenerationOptions};

use crate::{Error, scoring::Scored};

/// The prompts and references of rows that have them: prompt/completion and instruction rows.
/// `None` for rows of other formats.
pub fn prompts_and_references(rows: &Rows) -> Option<Vec<(String, String)>> {
    rows.rows()
        .iter()
        .map(|(_, row)| match row {
            Row::PromptCompletion { prompt, completion } => {
                Some((prompt.clone(), completion.clone()))
            }
            Row::Instruction {
                instruction,
                input,
                output,
            } => Some((
                instruction_prompt(instruction, input.as_deref()),
                output.clone(),
            )),
            _ => None,
        })
        .collect()
}

/// Ids that end a text: the generation config's, and the tokenizer's eos.
pub fn stop_ids(checkpoint: &Checkpoint, tokenizer: &TextTokenizer) -> Vec<u32> {
    let mut ids = checkpoint.generation_config().stop_ids.to_vec();
    ids.extend(tokenizer.eos_id().filter(|id| !ids.contains(id)));
    ids
}

/// Completes each prompt greedily, `batch_size` at a time, up to twice the tokens of the longest
/// reference. `stop_ids` end a text; `progress` is called with the prompts done so far.
///
/// # Errors
/// A text that cannot be tokenised.
pub fn complete<B: Ops, A: Adapter<B>>(
    model: &PeftModel<B, A>,
    tokenizer: &TextTokenizer,
    pairs: &[(String, String)],
    batch_size: usize,
    stop_ids: &[u32],
    progress: &mut dyn FnMut(usize),
) -> Result<Vec<Scored>, Error> {
    let mut longest = 0;
    for (_, reference) in pairs {
        longest = longest.max(tokenizer.encode(reference)?.len());
    }
    let options = GenerationOptions::greedy(2 * longest.max(1), stop_ids.to_vec());
    let mut scored = Vec::with_capacity(pairs.len());
    for chunk in pairs.chunks(batch_size) {
        let ids = chunk
            .iter()
            .map(|(prompt, _)| tokenizer.encode(prompt))
            .collect::<Result<Vec<_>, _>>()?;
        let inputs = left_padded::<B>(&ids, &model.base().device());
        let generated = model.generate(inputs, &options, &mut |_, _| ControlFlow::Continue(()));
        for ((prompt, reference), row) in chunk.iter().zip(generated) {
            scored.push(Scored {
                prompt: prompt.clone(),
                reference: reference.clone(),
                text: tokenizer.decode(&row.token_ids, true)?,
            });
        }
        progress(scored.len());
    }
    Ok(scored)
}

/// Rows of different lengths as one batch whose rows end together.
pub fn left_padded<B: Ops>(rows: &[Vec<u32>], device: &B::Device) -> Inputs<B> {
    let seq = rows.iter().map(Vec::len).max().unwrap_or(0);
    let mut ids: Vec<i64> = Vec::with_capacity(rows.len() * seq);
    let mut cells = Vec::with_capacity(rows.len() * seq);
    for row in rows {
        let padding = seq - row.len();
        ids.extend(std::iter::repeat_n(0, padding));
        ids.extend(row.iter().map(|id| i64::from(*id)));
        cells.extend((0..seq).map(|cell| cell >= padding));
    }
    let ids = TensorData::new(ids, [rows.len(), seq]);
    Inputs {
        input_ids: Tensor::<B, 2, Int>::from_data(ids, device),
        attention_mask: AttentionMask::new(rows.len(), seq, cells),
        placement: Placement::Front,
    }
}
