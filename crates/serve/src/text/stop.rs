//! Stop strings in a text that comes in parts.

/// Finds the first stop string of a text. What may be the beginning of one is held back.
#[derive(Debug)]
pub(super) struct StopFinder {
    stops: Vec<String>,
    held: String,
}

/// What a part of a text brings.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// Text that is before any stop string.
    Text(String),
    /// The text ends with this: a stop string follows it.
    Stopped(String),
}

impl StopFinder {
    /// `stops` are not empty.
    pub(super) fn new(stops: Vec<String>) -> Self {
        Self {
            stops,
            held: String::new(),
        }
    }

    /// Takes the next part of the text. Of several stop strings, the one that is complete first counts, so it does not
    /// matter where parts end.
    pub(super) fn push(&mut self, part: &str) -> Found {
        self.held.push_str(part);
        let matches = self.stops.iter().filter_map(|stop| {
            let start = self.held.find(stop.as_str())?;
            Some((start + stop.len(), start))
        });
        if let Some((_, start)) = matches.min() {
            self.held.truncate(start);
            return Found::Stopped(std::mem::take(&mut self.held));
        }
        let kept = self.held.split_off(self.certain());
        Found::Text(std::mem::replace(&mut self.held, kept))
    }

    /// What is held back, where nothing more comes.
    pub(super) fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }

    /// The number of bytes that are part of no stop string, whatever follows.
    fn certain(&self) -> usize {
        let longest = self.stops.iter().map(String::len).max().unwrap_or(0);
        let first = (self.held.len() + 1).saturating_sub(longest);
        let begins_one = |at: &usize| {
            let rest = self.held.get(*at..);
            rest.is_some_and(|rest| self.stops.iter().any(|stop| stop.starts_with(rest)))
        };
        // At the end the rest is empty, and begins any.
        (first..=self.held.len())
            .find(begins_one)
            .unwrap_or(self.held.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The text that comes out of these parts, and whether it was stopped.
    fn cut(stops: &[&str], parts: &[&str]) -> (String, bool) {
        let mut finder = StopFinder::new(stops.iter().map(|stop| (*stop).to_owned()).collect());
        let mut text = String::new();
        for part in parts {
            match finder.push(part) {
                Found::Text(part) => text += &part,
                Found::Stopped(part) => return (text + &part, true),
            }
        }
        (text + &finder.finish(), false)
    }

    #[test]
    fn a_stop_string_cuts_a_text_wherever_its_parts_end() {
        for (stops, text, expected) in [
            (&["ab"][..], "xxaabyy", Some("xxa")),
            (&["aab"], "aaab", Some("a")),
            (&["\n\n"], "one\ntwo\n\nthree", Some("one\ntwo")),
            (&["ab"], "xxa", None),
            // The first one that is complete, not the first that begins.
            (&["abcd", "bc"], "xabcd", Some("xa")),
            (&["bc", "abc"], "xabc", Some("x")),
            (&["日本"], "in 日 and 日本語", Some("in 日 and ")),
            (&["é", "a"], "caf\u{e9}", Some("c")),
            (&[], "all of it", None),
        ] {
            let whole = (expected.unwrap_or(text).to_owned(), expected.is_some());
            let chars: Vec<String> = text.chars().map(String::from).collect();
            // Every way to cut the text into two parts, and character by character.
            let each: Vec<&str> = chars.iter().map(String::as_str).collect();
            assert_eq!(cut(stops, &each), whole, "{stops:?} {text}");
            for (at, _) in text.char_indices() {
                let parts = [&text[..at], &text[at..]];
                assert_eq!(cut(stops, &parts), whole, "{stops:?} {parts:?}");
            }
        }
    }

    #[test]
    fn only_what_may_begin_a_stop_string_is_held_back() {
        let mut finder = StopFinder::new(vec!["</end>".to_owned()]);
        assert_eq!(finder.push("one <"), Found::Text("one ".to_owned()));
        assert_eq!(finder.push("/en"), Found::Text(String::new()));
        assert_eq!(finder.push("ough"), Found::Text("</enough".to_owned()));
        assert_eq!(finder.push("</end> more"), Found::Stopped(String::new()));
    }
}
