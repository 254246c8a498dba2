//! Scores of generated text.

use serde::{Deserialize, Serialize};

/// How close generated texts come to what they should be.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct TextScores {
    /// Corpus BLEU-4 (Papineni et al. 2002), 0 to 1, as Hugging Face's `evaluate` computes it.
    pub bleu: f64,
    /// Share of texts that are the reference, white space at the ends aside.
    pub exact_match: f64,
    /// Share of slot values that stand in the text. `None` unless every prompt is a table: one line of at least two
    /// fields `name: value`, with ` | ` or `, ` between them, whose names are words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slot_accuracy: Option<f64>,
    /// Texts that are empty, white space aside.
    pub empty_texts: usize,
    /// All texts.
    #[serde(skip)]
    pub texts: usize,
}

/// One text to score, or another answer of a model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
            empty_texts: texts.iter().filter(|t| t.text.trim().is_empty()).count(),
            texts: texts.len(),
        })
    }
}

impl std::fmt::Display for TextScores {
    /// A line for each score.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "BLEU         {:.3}", self.bleu)?;
        writeln!(f, "exact match  {:.1} %", 100.0 * self.exact_match)?;
        if let Some(share) = self.slot_accuracy {
            writeln!(f, "slots in it  {:.1} %", 100.0 * share)?;
        }
        match self.empty_texts {
            0 => Ok(()),
            empty => writeln!(f, "empty texts  {empty} of {}", self.texts),
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

/// The values of a table in the manner of E2E, `name: Aromi | area: city centre` or `name: Aromi, area: city centre`;
/// `None` for a prompt of another form.
fn slot_values(prompt: &str) -> Option<Vec<&str>> {
    let prompt = prompt.trim();
    let separator = if prompt.contains(" | ") { " | " } else { ", " };
    // Where each field begins, and where its value does. A comma may also stand in a value.
    let mut fields: Vec<(usize, usize)> = Vec::new();
    let mut begin = 0;
    for piece in prompt.split(separator) {
        match piece.split_once(": ") {
            Some((name, _)) if is_name(name) => {
                fields.push((begin, begin + name.len() + ": ".len()));
            }
            _ if separator == ", " && !fields.is_empty() => {}
            _ => return None,
        }
        begin += piece.len() + separator.len();
    }
    let next = fields
        .iter()
        .skip(1)
        .map(|(begin, _)| begin - separator.len());
    let ends = next.chain([prompt.len()]);
    let values = fields.iter().zip(ends);
    let values = values.map(|((_, value), end)| prompt[*value..end].trim());
    let values: Vec<&str> = values.collect();
    let is_table = values.len() > 1
        && !prompt.contains('\n')
        && values
            .iter()
            .all(|value| !value.is_empty() && !value.contains(": "));
    is_table.then_some(values)
}

/// Whether a field can have this name: one or two words, as `eatType` and `customer rating`.
fn is_name(name: &str) -> bool {
    let is_word = |word: &str| {
        word.starts_with(|first: char| first.is_alphabetic())
            && word
                .chars()
                .all(|c| c.is_alphanumeric() || c == '_' || c == '-')
    };
    let words: Vec<&str> = name.split(' ').collect();
    words.len() <= 2 && words.into_iter().all(is_word)
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
    fn fields_between_commas_are_slots_of_their_own() {
        for (prompt, values) in [
            ("name: Aromi, eatType: pub", vec!["Aromi", "pub"]),
            (
                "name: Aromi | customer rating: 3, or 4",
                vec!["Aromi", "3, or 4"],
            ),
            (
                "food: fish, chips, area: city centre\n",
                vec!["fish, chips", "city centre"],
            ),
        ] {
            assert_eq!(slot_values(prompt), Some(values), "{prompt}");
        }
    }

    #[test]
    fn prompts_that_are_no_tables_have_no_slots() {
        for prompt in [
            "What is this?",
            "Question: what is this?",
            "Translate to French: the cat",
            "name: Aromi",
            "Note: tea, cake and more",
            "title: A | a line without a name",
            "name: Aromi | area: \n",
            "Read this: name: Aromi, area: centre",
            "name: Aromi\nfood: fish, area: centre",
        ] {
            let table = scored("name: Aromi | area: centre", "A cat.", "A cat.");
            let texts = [table, scored(prompt, "A cat.", "A cat.")];
            let scores = TextScores::of(&texts).unwrap();
            assert_eq!(
                (scores.slot_accuracy, scores.exact_match),
                (None, 1.0),
                "{prompt}"
            );
            assert!(!scores.to_string().contains("slots"));
        }
    }

    #[test]
    fn empty_texts_are_counted_and_said() {
        let texts = [scored("a", "b", " \n"), scored("a", "b", "b")];
        let scores = TextScores::of(&texts).unwrap();
        assert_eq!((scores.empty_texts, scores.exact_match), (1, 0.5));
        assert!(scores.to_string().ends_with("empty texts  1 of 2\n"));
        let scores = TextScores::of(&texts[1..]).unwrap();
        assert!(!scores.to_string().contains("empty"));
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
