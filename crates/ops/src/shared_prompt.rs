//! Attention of rows that share a prompt, in one list with the prompt's own tokens.

use burn::{
    backend::{Autodiff, autodiff::checkpoint::strategy::CheckpointStrategy},
    tensor::{Tensor, backend::Backend, s},
};

use crate::{Kernels, ScoreMask, dtype::accumulation_dtype};

/// How the tokens of a list belong together: first those of `batch` rows, `seq` each, and behind them those of
/// a prompt, which each row sees as if it stood in front of it alone.
#[derive(Debug, Clone)]
pub struct SharedPrompt<B: Backend> {
    /// Rows.
    pub batch: usize,
    /// Cells of a row.
    pub seq: usize,
    /// What the cells of a row see of the prompt's tokens and, behind them, of the row.
    pub row_mask: ScoreMask<B>,
    /// What the prompt's tokens see of each other.
    pub prompt_mask: ScoreMask<B>,
}

impl<B: Backend> SharedPrompt<B> {
    /// The rows' states, `[batch, heads, seq, head_dim]`, and the prompt's, `[1, heads, prompt, head_dim]`, of
    /// `[1, heads, batch · seq + prompt, head_dim]`.
    fn split(&self, states: Tensor<B, 4>) -> [Tensor<B, 4>; 2] {
        let [_, heads, tokens, head_dim] = states.dims();
        // As they come from their projection, a token's heads side by side, so that a part is in one piece.
        let states = states.swap_dims(1, 2).reshape([tokens, heads, head_dim]);
        let rows = self.batch * self.seq;
        let of_rows = states.clone().slice(s![..rows]);
        let of_rows = of_rows.reshape([self.batch, self.seq, heads, head_dim]);
        let of_prompt = states.slice(s![rows..]).unsqueeze();
        [of_rows, of_prompt].map(|states| states.swap_dims(1, 2))
    }

    /// The other way round.
    fn join(&self, [rows, prompt]: [Tensor<B, 4>; 2]) -> Tensor<B, 4> {
        let [_, heads, _, head_dim] = rows.dims();
        let rows = rows.swap_dims(1, 2);
        let rows = rows.reshape([1, self.batch * self.seq, heads, head_dim]);
        Tensor::cat(vec![rows, prompt.swap_dims(1, 2)], 1).swap_dims(1, 2)
    }

    /// The prompt's states in front of each row's: `[batch, heads, prompt + seq, head_dim]`.
    fn in_front(&self, [rows, prompt]: [Tensor<B, 4>; 2]) -> Tensor<B, 4> {
        let [_, heads, tokens, head_dim] = prompt.dims();
        let prompt = prompt.expand([self.batch, heads, tokens, head_dim]);
        let tokens = [prompt, rows].map(|states| states.swap_dims(1, 2));
        Tensor::cat(tokens.into(), 1).swap_dims(1, 2)
    }

    /// [`in_front`](Self::in_front), carried back: what each row asks of the prompt is added up.
    fn sum_in_front(&self, gradient: Tensor<B, 4>) -> [Tensor<B, 4>; 2] {
        let tokens = gradient.dims()[2] - self.seq;
        let dtype = gradient.dtype();
        let prompt = gradient.clone().slice(s![.., .., ..tokens, ..]);
        let prompt = prompt.cast(accumulation_dtype(dtype)).sum_dim(0);
        let rows = gradient.slice(s![.., .., tokens.., ..]);
        [rows, prompt.cast(dtype)]
    }
}

impl<B: Backend, C: CheckpointStrategy> SharedPrompt<Autodiff<B, C>> {
    /// The same for the backend below.
    pub(crate) fn inner(self) -> SharedPrompt<B> {
        SharedPrompt {
            batch: self.batch,
            seq: self.seq,
            row_mask: self.row_mask.inner(),
            prompt_mask: self.prompt_mask.inner(),
        }
    }
}

pub(crate) fn attention<B: Kernels>(
    query: Tensor<B, 4>,
    key: Tensor<B, 4>,
    value: Tensor<B, 4>,
    shared: &SharedPrompt<B>,
) -> Tensor<B, 4> {
    let [query, key, value] = [query, key, value].map(|states| shared.split(states));
    let [rows, prompt] = query;
    let [all_keys, all_values] = [&key, &value].map(|states| shared.in_front(states.clone()));
    let ([_, key], [_, value]) = (key, value);
    shared.join([
        <B as Kernels>::grouped_attention(rows, all_keys, all_values, &shared.row_mask),
        <B as Kernels>::grouped_attention(prompt, key, value, &shared.prompt_mask),
    ])
}

/// The gradients of query, key and value.
pub(crate) fn attention_backward<B: Kernels>(
    query: Tensor<B, 4>,
    key: Tensor<B, 4>,
    value: Tensor<B, 4>,
    shared: &SharedPrompt<B>,
    above: Tensor<B, 4>,
) -> [Tensor<B, 4>; 3] {
    let [query, key, value, above] = [query, key, value, above].map(|states| shared.split(states));
    let [all_keys, all_values] = [&key, &value].map(|states| shared.in_front(states.clone()));
    let ([rows, prompt], [above_rows, above_prompt]) = (query, above);
    let ([_, key], [_, value]) = (key, value);
    let mask = &shared.row_mask;
    let [rows_query, all_keys, all_values] =
        B::grouped_attention_backward(rows, all_keys, all_values, mask, above_rows);
    let mask = &shared.prompt_mask;
    let [prompt_query, key, value] =
        B::grouped_attention_backward(prompt, key, value, mask, above_prompt);
    let both = |of_rows, of_prompt| {
        let [rows, prompt] = shared.sum_in_front(of_rows);
        shared.join([rows, prompt + of_prompt])
    };
    [
        shared.join([rows_query, prompt_query]),
        both(all_keys, key),
        both(all_values, value),
    ]
}
