//! Which token follows from the scores.

use rand::{Rng, rngs::StdRng};

use super::GenerationOptions;

/// The first of the largest scores, as `torch.argmax` chooses.
pub(super) fn likeliest(scores: &[f32]) -> u32 {
    let mut best = 0;
    for (id, score) in scores.iter().enumerate() {
        if *score > scores[best] {
            best = id;
        }
    }
    best as u32
}

/// Temperature, then top-k, then top-p: transformers' order.
pub(super) fn sample(scores: &[f32], options: &GenerationOptions, random: &mut StdRng) -> u32 {
    let mut candidates: Vec<(u32, f64)> = scores
        .iter()
        .enumerate()
        .map(|(id, score)| (id as u32, f64::from(*score) / options.temperature))
        .collect();
    candidates.sort_by(|a, b| b.1.total_cmp(&a.1));
    if options.top_k > 0 {
        candidates.truncate(options.top_k);
    }
    let largest = candidates[0].1;
    let mut total = 0.0;
    for (_, score) in &mut candidates {
        *score = (*score - largest).exp();
        total += *score;
    }
    // The nucleus: the fewest tokens that reach top_p, never none (Holtzman et al. 2020).
    let mut kept = 0.0;
    let mut nucleus = 0;
    for (_, weight) in &candidates {
        if nucleus > 0 && kept >= options.top_p * total {
            break;
        }
        kept += weight;
        nucleus += 1;
    }
    let mut draw = random.random::<f64>() * kept;
    for (id, weight) in &candidates[..nucleus] {
        draw -= weight;
        if draw < 0.0 {
            return *id;
        }
    }
    candidates[nucleus - 1].0
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
}
