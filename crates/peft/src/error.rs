//! What can be wrong with a method's options.

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An option has a value that cannot work.
    #[error("method.{name}: {reason}")]
    Option {
        /// The option's name in run.toml.
        name: &'static str,
        /// What is wrong with it.
        reason: String,
    },
}

impl Error {
    pub(crate) fn option(name: &'static str, reason: impl Into<String>) -> Self {
        Self::Option {
            name,
            reason: reason.into(),
        }
    }
}
