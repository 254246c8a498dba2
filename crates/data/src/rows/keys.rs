//! Keys that nothing reads.

/// The most keys that are named; a file of something else may have thousands.
const NAMED: usize = 8;
/// The most keys that are counted.
const KEPT: usize = 1000;
/// The most characters of a key that are shown.
const SHOWN: usize = 60;

/// Keys that were found and are not used, in the order in which they were met, and the number of rows of each.
#[derive(Debug, Default)]
pub(crate) struct UnknownKeys(Vec<(String, usize)>);

impl UnknownKeys {
    /// Counts the keys of one row.
    pub(crate) fn count<'a>(&mut self, keys: impl IntoIterator<Item = &'a str>) {
        for key in keys {
            self.add(key, 1);
        }
    }

    /// Counts a key of so many rows.
    pub(crate) fn add(&mut self, key: &str, rows: usize) {
        let is_known = |(known, _): &&mut (String, usize)| known == key;
        if let Some((_, count)) = self.0.iter_mut().find(is_known) {
            *count += rows;
        } else if self.0.len() < KEPT {
            self.0.push((key.to_owned(), rows));
        }
    }

    /// Adds the keys of other rows.
    pub(crate) fn merge(&mut self, others: Self) {
        for (key, rows) in others.0 {
            self.add(&key, rows);
        }
    }

    /// Removes keys that are used after all.
    pub(crate) fn forget(&mut self, used: &[String]) {
        self.0.retain(|(key, _)| !used.contains(key));
    }

    /// A sentence for each key that stands beside the rows of a document.
    pub(crate) fn beside(&self, path: &str) -> Vec<String> {
        let note = |(key, _): &(String, usize)| {
            let key: String = key.chars().take(SHOWN).collect();
            format!("{path}: key {key:?} beside \"data\" is not used")
        };
        self.0.iter().take(NAMED).map(note).collect()
    }

    /// A sentence for each key; `fate` says what becomes of it.
    pub(crate) fn notes(&self, path: &str, fate: &str) -> Vec<String> {
        let note = |(key, rows): &(String, usize)| {
            let key: String = key.chars().take(SHOWN).collect();
            format!("{path}: key {key:?} in {} {fate}", rows_of(*rows))
        };
        let mut notes: Vec<String> = self.0.iter().take(NAMED).map(note).collect();
        if self.0.len() > NAMED {
            notes.push(format!(
                "{path}: {} more keys are not used",
                self.0.len() - NAMED
            ));
        }
        notes
    }
}

/// "1 row", "2 rows".
pub(crate) fn rows_of(count: usize) -> String {
    match count {
        1 => "1 row".to_owned(),
        count => format!("{count} rows"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lists_and_long_keys_are_cut_short() {
        let mut keys = UnknownKeys::default();
        for index in 0..20 {
            keys.count([format!("{index}{}", "k".repeat(500)).as_str()]);
        }
        let notes = keys.notes("a.jsonl", "is not used");
        assert_eq!(notes.len(), NAMED + 1);
        assert!(notes.iter().all(|note| note.len() < 120), "{notes:?}");
        assert_eq!(notes[NAMED], "a.jsonl: 12 more keys are not used");
    }
}
