//! Reading what `tests/fixtures/make_metrics.py` wrote.

use std::fmt;

use serde::de::DeserializeOwned;
use serde_json::Value;

/// How far a score may be from its reference. Both are sums of a few f64.
const TOLERANCE: f64 = 1e-12;

/// The cases of a file.
pub(super) struct Cases(Vec<Value>);

/// One of them.
pub(super) struct Case<'a>(&'a Value);

impl Cases {
    pub(super) fn read(text: &str) -> Self {
        Self(serde_json::from_str(text).unwrap())
    }

    /// All of them; a file with fewer than `count` is not what it should be.
    pub(super) fn at_least(&self, count: usize) -> impl Iterator<Item = Case<'_>> {
        assert!(self.0.len() >= count, "{} cases", self.0.len());
        self.0.iter().map(Case)
    }
}

impl Case<'_> {
    pub(super) fn parse<T: DeserializeOwned>(&self, key: &str) -> T {
        serde_json::from_value(self.0[key].clone()).unwrap()
    }
}

impl fmt::Display for Case<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[track_caller]
pub(super) fn assert_close(found: f64, expected: f64, what: &str) {
    assert!(
        (found - expected).abs() <= TOLERANCE,
        "{found} for {expected}: {what}"
    );
}
