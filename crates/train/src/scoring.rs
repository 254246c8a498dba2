//! Scoring generated text.

use serde::Serialize;

/// How close generated texts come to what they should be.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct TextScores {
    /// Corpus BLEU-4 (Papineni et al. 2002), 0 to 1, as Hugging Face's `evaluate` computes it.
    pub bleu: f64,
    /// Share of texts that are the reference, white space at the ends aside.
    pub exact_match: f64,
    /// Share of slot values that stand in the text, where the prompts are tables.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slot_accuracy: Option<f64>,
}

/// One text to score.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scored {
    /// What the model was given.
    pub prompt: String,
    /// What it should have written.
    pub reference: String,
    /// What it wrote.
    pub text: String,
}

impl TextScores {
    /// Scores of `texts`; `None` where there are none.
    pub fn of(texts: &[Scored]) -> Option<Self> {
        if texts.is_empty() {
            return None;
        }
        let references: Vec<_> = texts.iter().map(|t| vec![t.reference.clone()]).collect();
        let predictions: Vec<_> = texts.iter().map(|t| t.text.clone()).collect();
        let exact = texts
            .iter()
            .filter(|t| t.text.trim() == t.reference.trim())
            .count();
        Some(Self {
            bleu: bleuscore::compute_score(
                &references,
                &predictions,
                4,
                false,
                bleuscore::RefLenMethod::Closest,
            )
            .bleu,
            exact_match: exact as f64 / texts.len() as f64,
            slot_accuracy: slot_accuracy(texts),
        })
    }
}

impl std::fmt::Display for TextScores {
    /// A line for each score.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "BLEU         {:.3}", self.bleu)?;
        writeln!(f, "exact match  {:.1} %", 100.0 * self.exact_match)?;
        match self.slot_accuracy {
            Some(share) => writeln!(f, "slots in it  {:.1} %", 100.0 * share),
            None => Ok(()),
        }
    }
}

/// `None` unless every prompt is a table.
fn slot_accuracy(texts: &[Scored]) -> Option<f64> {
    let (mut found, mut all) = (0_u32, 0_u32);
    for scored in texts {
        for value in slot_values(&scored.prompt)? {
            all += 1;
            found += u32::from(scored.text.contains(value));
        }
    }
    Some(f64::from(found) / f64::from(all))
}

/// The values of a table in the manner of E2E, `name: Aromi | area: city centre`; `None` for a
/// prompt of another form.
fn slot_values(prompt: &str) -> Option<Vec<&str>> {
    prompt
        .trim()
        .split(" | ")
        .map(|slot| {
            let (key, value) = slot.split_once(": ")?;
            let plain = !key.contains(['\n', ':']) && !value.trim().is_empty();
            plain.then(|| value.trim())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scored(prompt: &str, reference: &str, text: &str) -> Scored {
        Scored {
            prompt: prompt.into(),
            reference: reference.into(),
            text: text.into(),
        }
    }

    #[test]
    fn slots_are_counted_over_all_texts() {
        let texts = [
            scored(
                "name: Aromi | area: city centre\n",
                "",
                "Aromi is in the city centre.",
            ),
            scored(
                "name: Zizzi | area: riverside\n",
                "",
                "Aromi is in the city centre.",
            ),
        ];
        assert_eq!(TextScores::of(&texts).unwrap().slot_accuracy, Some(0.5));
    }

    #[test]
    fn prompts_that_are_no_tables_have_no_slots() {
        let texts = [scored("What is this?", "A cat.", "A cat.")];
        let scores = TextScores::of(&texts).unwrap();
        assert_eq!((scores.slot_accuracy, scores.exact_match), (None, 1.0));
    }

    #[test]
    fn bleu_is_that_of_the_papers_definition() {
        // Precisions of 1 to 4 words 5/6, 4/5, 3/4 and 2/3; equal lengths.
        let texts = [scored("", "a b c d e f", "a b c d e g")];
        let found = TextScores::of(&texts).unwrap().bleu;
        let expected = (5.0 / 6.0 * 4.0 / 5.0 * 3.0 / 4.0 * 2.0 / 3.0_f64).powf(0.25);
        assert!((found - expected).abs() < 1e-9, "{found} for {expected}");
    }
}
