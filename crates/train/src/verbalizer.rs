//! Classes told by the language-model head: the words of each class are scored behind the text.
//!
//! The score of a class is the log-probability of its words (Schick and Schütze 2021), less that behind a text that says
//! nothing where that is asked for (Zhao et al. 2021). A text runs once, whatever the number of classes: the words are
//! scored behind its keys and values.

use burn::tensor::{Int, Tensor, TensorData, activation::log_softmax};
use burn_peft::{Adapter, Injected, PeftModel};
use burn_peft_data::{Prompt, Row, Rows, Verbalizer};
use burn_peft_decoder::AttentionMask;
use burn_peft_ops::Ops;

use crate::{Error, HeldOutRows, Predicted, left_padded, predictions::of_text};

/// A text that says nothing (Zhao et al. 2021, section 5).
const CONTENT_FREE: &str = "N/A";

/// What the words of each class say of some rows.
pub(crate) fn word_predictions<B: Ops, A: Adapter<B>>(
    held_out: &HeldOutRows<'_>,
    model: &PeftModel<B, A>,
    rows: &Rows,
) -> Result<Vec<Predicted>, Error> {
    let task = held_out.task;
    let (Some(labels), Some(words)) = (&task.labels, &task.words) else {
        return Ok(Vec::new());
    };
    let (tokenizer, template) = (held_out.tokenizer, held_out.template);
    let verbalizer = Verbalizer::new(labels, words, tokenizer)?;
    let (injected, device) = (model.injected(), model.base().device());
    let tokens = model.adapter().inject().num_virtual_tokens();
    let room = model.base().config().positions_left(tokens);
    let room = held_out.max_length.unwrap_or(room).min(room);
    let prompts = |rows: &Rows| -> Result<Vec<Prompt>, Error> {
        let candidates = verbalizer.candidates(rows, tokenizer, template, Some(room))?;
        Ok(candidates.into_iter().map(|row| row.prompt).collect())
    };
    let scores =
        |prompts: &[Prompt]| scores_of::<B>(&injected, prompts, verbalizer.answers(), &device);
    let without_text = match task.config.calibrate {
        true => {
            let row = Row::Classification {
                text: CONTENT_FREE.into(),
                text_pair: None,
                label: None,
            };
            scores(&prompts(&Rows::single("", row))?).remove(0)
        }
        false => vec![0.0; labels.len()],
    };
    let ranks = &held_out.ranks;
    let prompts = prompts(rows)?;
    let batches = prompts.chunks(held_out.batch_size.max(1)).enumerate();
    let own = batches.filter(|(number, _)| ranks.has(*number));
    let own = own.map(|(_, prompts)| scores(prompts)).collect();
    let scores = ranks.each(own).into_iter().flatten();
    let predicted = scores.map(|scores| {
        let relative = scores.iter().zip(&without_text);
        let relative: Vec<f32> = relative.map(|(score, none)| score - none).collect();
        of_text(&relative, labels)
    });
    Ok(predicted.collect())
}

/// The log-probability of each of `answers` behind each prompt, `[prompts][answers]`.
fn scores_of<B: Ops>(
    model: &Injected<B>,
    prompts: &[Prompt],
    answers: &[Vec<u32>],
    device: &B::Device,
) -> Vec<Vec<f32>> {
    let batch = prompts.len();
    let prepared = model.prepare(left_padded::<B>(prompts, device));
    let base = prepared.base().clone();
    let (last, cache) = prepared.generation_start();
    let first = log_softmax(base.logits(last), 1);
    let mut scores = vec![Vec::with_capacity(answers.len()); batch];
    for answer in answers {
        let ids = TensorData::from([i64::from(answer[0])]);
        let ids = Tensor::<B, 1, Int>::from_data(ids, device);
        let mut score = first.clone().select(1, ids).reshape([batch]);
        let rest = answer.len() - 1;
        if rest > 0 {
            let rows = |ids: &[u32]| {
                let ids = ids.iter().map(|id| i64::from(*id));
                let ids: Vec<i64> = ids.cycle().take(batch * rest).collect();
                Tensor::<B, 1, Int>::from_data(TensorData::new(ids, [batch * rest]), device)
            };
            let hidden = base.embed(rows(&answer[..rest]).reshape([batch, rest]));
            let mask = AttentionMask::full(batch, rest);
            let mut cache = cache.clone();
            let states = base.decode(hidden, &mask, &mut cache, None);
            let nll = base.token_losses(states, rows(&answer[1..]));
            score = score - nll.reshape([batch, rest]).sum_dim(1).reshape([batch]);
        }
        let of_rows = score.into_data();
        for (row, score) in scores.iter_mut().zip(of_rows.iter::<f32>()) {
            row.push(score);
        }
    }
    scores
}
