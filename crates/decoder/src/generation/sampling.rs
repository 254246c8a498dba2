//! Which token follows from the scores.

use std::{borrow::Cow, cmp::Ordering, collections::HashSet};

use rand::{Rng, SeedableRng, rngs::StdRng};

use super::GenerationOptions;

/// Candidates that are put in order at first. More follow where these do not suffice.
const SORTED_AT_FIRST: usize = 64;

/// Chooses the tokens of one row.
#[derive(Debug)]
pub struct Sampler<'a> {
    options: Cow<'a, GenerationOptions>,
    /// The ids of the prompt and of what was chosen.
    seen: HashSet<u32>,
    random: StdRng,
}

impl<'a> Sampler<'a> {
    /// For a row that begins with `prompt_ids`.
    #[must_use]
    pub fn new(prompt_ids: &[u32], options: impl Into<Cow<'a, GenerationOptions>>) -> Self {
        let options = options.into();
        Self {
            seen: prompt_ids.iter().copied().collect(),
            random: StdRng::seed_from_u64(options.seed),
            options,
        }
    }

    /// The next token.
    ///
    /// # Shapes
    /// - logits: `[vocab]`
    pub fn choose(&mut self, logits: &[f32]) -> u32 {
        let mut scores = Cow::Borrowed(logits);
        if self.options.repetition_penalty != 1.0 {
            let penalty = self.options.repetition_penalty as f32;
            let scores = scores.to_mut();
            for id in &self.seen {
                let score = &mut scores[*id as usize];
                *score = if *score > 0.0 {
                    *score / penalty
                } else {
                    *score * penalty
                };
            }
        }
        let id = if self.options.temperature <= 0.0 {
            likeliest(&scores)
        } else {
            sample(&scores, &self.options, &mut self.random)
        };
        self.seen.insert(id);
        id
    }

    /// Whether `id` ends the row.
    #[must_use]
    pub fn stops_at(&self, id: u32) -> bool {
        self.options.stop_ids.contains(&id)
    }
}

impl<'a> From<&'a GenerationOptions> for Cow<'a, GenerationOptions> {
    fn from(options: &'a GenerationOptions) -> Self {
        Cow::Borrowed(options)
    }
}

impl From<GenerationOptions> for Cow<'_, GenerationOptions> {
    fn from(options: GenerationOptions) -> Self {
        Cow::Owned(options)
    }
}

/// The first of the largest scores, as `torch.argmax` chooses.
fn likeliest(scores: &[f32]) -> u32 {
    let mut best = 0;
    for (id, score) in scores.iter().enumerate() {
        if *score > scores[best] {
            best = id;
        }
    }
    best as u32
}

/// Temperature, then top-k, then top-p: transformers' order.
fn sample(scores: &[f32], options: &GenerationOptions, random: &mut StdRng) -> u32 {
    let candidates = scores.iter().enumerate();
    let mut candidates: Vec<(u32, f64)> = candidates
        .map(|(id, score)| (id as u32, f64::from(*score) / options.temperature))
        .collect();
    if options.top_k > 0 && options.top_k < candidates.len() {
        candidates.select_nth_unstable_by(options.top_k - 1, likelier);
        candidates.truncate(options.top_k);
    }
    let largest = candidates.iter().map(|(_, score)| *score);
    let largest = largest.fold(f64::NEG_INFINITY, f64::max);
    let mut total = 0.0;
    for (_, score) in &mut candidates {
        *score = (*score - largest).exp();
        total += *score;
    }
    let mut candidates = InOrder::new(candidates);
    // The nucleus: the fewest tokens that reach top_p, never none (Holtzman et al. 2020).
    let mut kept = 0.0;
    let mut nucleus = 0;
    if options.top_p < 1.0 {
        while nucleus == 0 || kept < options.top_p * total {
            let Some((_, weight)) = candidates.get(nucleus) else {
                break;
            };
            kept += weight;
            nucleus += 1;
        }
    } else {
        (kept, nucleus) = (total, usize::MAX);
    }
    let mut draw = random.random::<f64>() * kept;
    let mut last = 0;
    for index in 0..nucleus {
        let Some((id, weight)) = candidates.get(index) else {
            break;
        };
        last = id;
        draw -= weight;
        if draw < 0.0 {
            break;
        }
    }
    last
}

/// The larger score first; of equal ones, the smaller id.
fn likelier(a: &(u32, f64), b: &(u32, f64)) -> Ordering {
    b.1.total_cmp(&a.1).then(a.0.cmp(&b.0))
}

/// Candidates from the likeliest on, put in order as far as they are asked for: a vocabulary is large, and the first
/// few have nearly all of the probability.
struct InOrder {
    candidates: Vec<(u32, f64)>,
    sorted: usize,
}

impl InOrder {
    fn new(candidates: Vec<(u32, f64)>) -> Self {
        Self {
            candidates,
            sorted: 0,
        }
    }

    fn get(&mut self, index: usize) -> Option<(u32, f64)> {
        while index >= self.sorted && self.sorted < self.candidates.len() {
            let more = (3 * self.sorted).max(SORTED_AT_FIRST);
            let rest = &mut self.candidates[self.sorted..];
            let more = more.min(rest.len());
            if more < rest.len() {
                rest.select_nth_unstable_by(more - 1, likelier);
            }
            rest[..more].sort_unstable_by(likelier);
            self.sorted += more;
        }
        self.candidates.get(index).copied()
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    fn options() -> GenerationOptions {
        GenerationOptions {
            temperature: 1.0,
            ..GenerationOptions::greedy(1, vec![])
        }
    }

    fn counts(scores: &[f32], options: &GenerationOptions) -> Vec<usize> {
        let mut random = StdRng::seed_from_u64(7);
        let mut counts = vec![0; scores.len()];
        for _ in 0..20_000 {
            counts[sample(scores, options, &mut random) as usize] += 1;
        }
        counts
    }

    #[test]
    fn sampling_follows_the_softmax_at_the_temperature() {
        // Probabilities 0.8 and 0.2 at temperature 1; odds 4 become 16 at temperature 1/2.
        let scores = [4.0_f32.ln(), 0.0];
        let expected = [(1.0, 0.2), (0.5, 1.0 / 17.0)];
        for (temperature, rare) in expected {
            let options = GenerationOptions {
                temperature,
                ..options()
            };
            let found = counts(&scores, &options)[1] as f64 / 20_000.0;
            // Four standard deviations of a binomial of 20,000 draws.
            let deviation = (rare * (1.0 - rare) / 20_000.0_f64).sqrt();
            assert!((found - rare).abs() < 4.0 * deviation, "{found} for {rare}");
        }
    }

    #[test]
    fn top_k_and_top_p_cut_the_tail() {
        let scores = [0.5_f32.ln(), 0.3_f32.ln(), 0.15_f32.ln(), 0.05_f32.ln()];
        let top_k = GenerationOptions {
            top_k: 2,
            ..options()
        };
        assert_eq!(counts(&scores, &top_k)[2..], [0, 0]);
        let top_p = GenerationOptions {
            top_p: 0.79,
            ..options()
        };
        assert_eq!(counts(&scores, &top_p)[2..], [0, 0]);
        let top_p = GenerationOptions {
            top_p: 0.81,
            ..options()
        };
        assert!(counts(&scores, &top_p)[2] > 0 && counts(&scores, &top_p)[3] == 0);
    }

    #[test]
    fn candidates_come_in_order_however_many_there_are() {
        let mut random = StdRng::seed_from_u64(1);
        // Few values, so that many are equal.
        let score = |id| (id, f64::from(random.random_range(0..50_u8)));
        let candidates: Vec<(u32, f64)> = (0..2000).map(score).collect();
        let mut sorted = candidates.clone();
        sorted.sort_by(|a, b| b.1.total_cmp(&a.1));
        let mut in_order = InOrder::new(candidates);
        let found: Vec<_> = (0..).map_while(|index| in_order.get(index)).collect();
        assert_eq!(found, sorted);
    }

    #[test]
    fn repetition_penalty_lowers_positive_and_negative_scores() {
        let options = GenerationOptions {
            repetition_penalty: 2.0,
            ..GenerationOptions::greedy(1, vec![])
        };
        assert_eq!(Sampler::new(&[0], &options).choose(&[1.5, 1.0]), 1);
        assert_eq!(Sampler::new(&[0], &options).choose(&[-0.6, -1.0]), 1);
    }
}
