//! Log-probabilities of tokens.

use super::row::TokenLogprob;

/// Those of `id`, and behind it of the `count` likeliest, from scores `[vocab]`.
pub(super) fn logprobs(scores: &[f32], id: u32, count: usize) -> Vec<TokenLogprob> {
    let largest = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = scores
        .iter()
        .map(|score| f64::from(score - largest).exp())
        .sum();
    let of = |id: u32| TokenLogprob {
        id,
        logprob: (f64::from(scores[id as usize] - largest) - sum.ln()) as f32,
    };
    let mut ids: Vec<u32> = (0..scores.len() as u32).collect();
    let count = count.min(ids.len());
    let likelier = |a: &u32, b: &u32| {
        scores[*b as usize]
            .total_cmp(&scores[*a as usize])
            .then(a.cmp(b))
    };
    if count > 0 && count < ids.len() {
        ids.select_nth_unstable_by(count - 1, likelier);
    }
    ids.truncate(count);
    ids.sort_unstable_by(likelier);
    std::iter::once(id).chain(ids).map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_are_those_of_the_softmax_and_the_likeliest_come_first() {
        let scores = [0.1_f32, 0.6, 0.3].map(f32::ln);
        let found = logprobs(&scores, 0, 2);
        let expected = [(0, 0.1_f32), (1, 0.6), (2, 0.3)];
        assert_eq!(found.len(), expected.len());
        for (found, (id, probability)) in found.iter().zip(expected) {
            assert_eq!(found.id, id);
            // A few roundings in f32.
            assert!((found.logprob - probability.ln()).abs() < 1e-6);
        }
    }
}
