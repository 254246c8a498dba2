//! Whether an adapter gets the base that it was trained on.

use burn_peft_files::Checksum;

use crate::config::AdapterConfig;
use crate::fields::shortened;

/// What is known of the base that an adapter is put on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BaseIdentity<'a> {
    /// A hub id, a path, or another name.
    pub name: Option<&'a str>,
    /// Branch, tag or commit of a hub id.
    pub revision: Option<&'a str>,
    /// That of its weights, as [`AdapterConfig::base_fingerprint`] has it.
    pub fingerprint: Option<Checksum>,
}

impl AdapterConfig {
    /// What tells that the adapter was trained on another base than this one, as a sentence; `None` where nothing
    /// does.
    ///
    /// Where both fingerprints are known, they decide. Else the names do, if the configuration has one: by their last
    /// parts, so that a hub id and a folder of that name are one model.
    pub fn other_base(&self, given: BaseIdentity<'_>) -> Option<String> {
        let (own_name, own_fingerprint) = (self.base_name(), self.base_fingerprint);
        let same_name = |name: &str| {
            given
                .name
                .is_some_and(|given| last_part(given) == last_part(name))
        };
        let this = match given.name {
            Some(name) => format!("`{}`", shortened(name)),
            None => "this base".into(),
        };
        if let (Some(own), Some(given)) = (own_fingerprint, given.fingerprint) {
            let others = || match own_name {
                Some(name) if same_name(name) => {
                    format!(
                        "it was trained on other weights of `{}` than these",
                        shortened(name)
                    )
                }
                Some(name) => format!("it was trained on `{}`, not on {this}", shortened(name)),
                None => format!("it was trained on other weights than those of {this}"),
            };
            return (own != given).then(others);
        }
        let name = own_name?;
        if !same_name(name) {
            return Some(format!(
                "it was trained on `{}`, not on {this}",
                shortened(name)
            ));
        }
        match (self.revision.as_deref(), given.revision) {
            (Some(own), Some(given)) if own != given => Some(format!(
                "it was trained on revision `{}` of `{}`, not on `{}`",
                shortened(own),
                shortened(name),
                shortened(given)
            )),
            _ => None,
        }
    }

    /// The name of the base, where the configuration has one.
    pub(crate) fn base_name(&self) -> Option<&str> {
        let name = self.base_model_name_or_path.as_deref()?.trim();
        (!name.is_empty()).then_some(name)
    }
}

/// The name of the model in a hub id, a path, or a path in Hugging Face's cache; in lower case, as the hub does not
/// tell cases apart.
fn last_part(name: &str) -> String {
    let parts = || {
        name.split(['/', '\\'])
            .filter(|part| !part.is_empty() && *part != ".")
    };
    let cached = parts().find_map(|part| part.strip_prefix("models--"));
    let part = match cached {
        // models--owner--model/snapshots/commit
        Some(repo) => repo.rsplit("--").next(),
        None => parts().next_back(),
    };
    part.unwrap_or(name).to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{BeftOptions, MethodOptions};

    fn of(weights: &str) -> Checksum {
        Checksum::of(weights.as_bytes())
    }

    fn config(name: Option<&str>, fingerprint: Option<&str>) -> AdapterConfig {
        AdapterConfig {
            base_fingerprint: fingerprint.map(of),
            ..AdapterConfig::new(MethodOptions::Beft(BeftOptions::default()), name)
        }
    }

    fn named(name: &str) -> BaseIdentity<'_> {
        BaseIdentity {
            name: Some(name),
            ..BaseIdentity::default()
        }
    }

    #[test]
    fn a_hub_id_and_a_folder_of_its_name_are_one_model() {
        let config = config(Some("Qwen/Qwen2.5-0.5B"), None);
        for same in [
            "Qwen/Qwen2.5-0.5B",
            "qwen/qwen2.5-0.5b",
            "models/Qwen2.5-0.5B/",
            "./Qwen2.5-0.5B/.",
            r"C:\models\Qwen2.5-0.5B",
            "/cache/hub/models--Qwen--Qwen2.5-0.5B/snapshots/060db6499f32faf8b98477b0a26969ef7d8b9987",
        ] {
            assert_eq!(config.other_base(named(same)), None, "{same}");
        }
        assert_eq!(
            config
                .other_base(named("Qwen/Qwen2.5-0.5B-Instruct"))
                .unwrap(),
            "it was trained on `Qwen/Qwen2.5-0.5B`, not on `Qwen/Qwen2.5-0.5B-Instruct`"
        );
        assert_eq!(
            config.other_base(BaseIdentity::default()).unwrap(),
            "it was trained on `Qwen/Qwen2.5-0.5B`, not on this base"
        );
    }

    #[test]
    fn without_a_name_and_a_fingerprint_nothing_is_known() {
        let print = BaseIdentity {
            fingerprint: Some(of("1")),
            ..named("a/b")
        };
        for name in [None, Some(""), Some(" ")] {
            assert_eq!(config(name, None).other_base(print), None);
        }
        assert_eq!(config(None, Some("1")).other_base(named("a/b")), None);
    }

    #[test]
    fn fingerprints_go_before_names() {
        let given = |fingerprint| BaseIdentity {
            fingerprint: Some(of(fingerprint)),
            ..named("a/b")
        };
        assert_eq!(config(Some("x/y"), Some("1")).other_base(given("1")), None);
        for (name, says) in [
            (Some("x/y"), "it was trained on `x/y`, not on `a/b`"),
            (
                Some("x/b"),
                "it was trained on other weights of `x/b` than these",
            ),
            (None, "it was trained on other weights than those of `a/b`"),
        ] {
            assert_eq!(
                config(name, Some("2")).other_base(given("1")).unwrap(),
                says
            );
        }
    }

    #[test]
    fn another_revision_is_another_base() {
        let config = AdapterConfig {
            revision: Some("v1".into()),
            ..config(Some("a/b"), None)
        };
        let given = |revision| BaseIdentity {
            revision,
            ..named("a/b")
        };
        assert_eq!(config.other_base(given(None)), None);
        assert_eq!(config.other_base(given(Some("v1"))), None);
        assert_eq!(
            config.other_base(given(Some("v2"))).unwrap(),
            "it was trained on revision `v1` of `a/b`, not on `v2`"
        );
    }
}
