//! What to write in the place of an unknown key or section.
//!
//! A hint names the right key or there is none: a name of another program is looked up, and a misspelt one must be very
//! near to the key.

mod foreign;

pub(super) use self::foreign::{SECOND_NAMES, translate};

use burn_peft::MethodConfig;

use super::{SECTIONS, options_of};

/// What to write in the place of an unknown key of `section`; empty where nothing is known to be meant.
pub(super) fn for_key(section: &str, key: &str, method: &MethodConfig) -> String {
    let homes = homes_of(key, method);
    if !homes.is_empty() {
        return format!("it belongs in {}", bracketed(&homes));
    }
    if section == "method" {
        let has_key = |other: &MethodConfig| keys_of("method", other).contains(&key);
        let others = MethodConfig::all().into_iter().filter(has_key);
        let others: Vec<&str> = others.map(|other| other.name()).collect();
        if !others.is_empty() {
            return format!("it is an option of {}", others.join(" and "));
        }
    }
    match meant(Some(section), key, method) {
        Some(Meant::Key(home, key)) if home == section => format!("did you mean `{key}`?"),
        Some(Meant::Key(home, key)) => format!("did you mean `{home}.{key}`?"),
        Some(Meant::Flag(flag)) => format!("there is a flag for it, {flag}"),
        None => String::new(),
    }
}

/// What to write in the place of an unknown section, or of a key outside of all sections.
pub(super) fn for_section(name: &str) -> String {
    let method = MethodConfig::default();
    let homes = homes_of(name, &method);
    if !homes.is_empty() {
        return format!("`{name}` belongs in {}", bracketed(&homes));
    }
    let near = foreign::target_of(name, &foreign::SECTIONS).or_else(|| nearest(name, &SECTIONS));
    match (near, meant(None, name, &method)) {
        (Some(section), _) => format!("did you mean [{section}]?"),
        (None, Some(Meant::Key(home, key))) => format!("did you mean `{home}.{key}`?"),
        (None, Some(Meant::Flag(flag))) => format!("there is a flag for it, {flag}"),
        (None, None) => format!(
            "the sections are {}",
            SECTIONS.map(|name| format!("[{name}]")).join(", ")
        ),
    }
}

/// What a name stands for.
enum Meant {
    /// A section and its key.
    Key(&'static str, &'static str),
    /// A flag.
    Flag(&'static str),
}

fn meant(section: Option<&str>, name: &str, method: &MethodConfig) -> Option<Meant> {
    let name = snake_case(name);
    let own = SECTIONS.into_iter().find(|known| Some(*known) == section);
    let others = SECTIONS.into_iter().filter(|known| Some(*known) != own);
    let keys = own.into_iter().chain(others);
    let keys: Vec<_> = keys
        .map(|section| (section, keys_of(section, method)))
        .collect();
    let find = |key: &str| {
        keys.iter().find_map(|(section, keys)| {
            let key = keys.iter().find(|known| **known == key)?;
            Some(Meant::Key(section, key))
        })
    };
    if let Some(known) = find(&name) {
        return Some(known);
    }
    if let Some(target) = foreign::target_of(&name, foreign::KEYS) {
        let Some((section, key)) = target.split_once('.') else {
            return Some(Meant::Flag(target));
        };
        // Not every method has every option.
        return keys_of(section, method)
            .contains(&key)
            .then_some(Meant::Key(section, key));
    }
    keys.iter()
        .find_map(|(section, keys)| Some(Meant::Key(section, nearest(&name, keys)?)))
}

/// The keys of a section; none of an unknown one.
pub(super) fn keys_of(section: &str, method: &MethodConfig) -> Vec<&'static str> {
    let options = options_of(section, method).unwrap_or_default();
    options.into_iter().map(|option| option.name).collect()
}

/// The sections that have this key.
fn homes_of(key: &str, method: &MethodConfig) -> Vec<&'static str> {
    let has_key = |section: &&str| keys_of(section, method).contains(&key);
    SECTIONS.into_iter().filter(has_key).collect()
}

fn bracketed(sections: &[&str]) -> String {
    let sections: Vec<_> = sections
        .iter()
        .map(|section| format!("[{section}]"))
        .collect();
    sections.join(" or ")
}

/// The nearest of the known names, if it is so near that nothing else can be meant.
fn nearest<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    // As many slips as one makes: one in a word, two in two, three in a long name.
    let slips = |known: &str| match known.len().min(name.len()) {
        0..=2 => 0,
        3..=7 => 1,
        8..=15 => 2,
        _ => 3,
    };
    let distances = known
        .iter()
        .map(|known| (strsim::damerau_levenshtein(name, known), *known));
    let near = distances.filter(|(distance, known)| *distance <= slips(known));
    near.min_by_key(|(distance, _)| *distance)
        .map(|(_, known)| known)
}

/// `numTrainEpochs` and `num-train-epochs` as `num_train_epochs`.
fn snake_case(name: &str) -> String {
    let mut text = String::with_capacity(name.len());
    let mut after_lower = false;
    for c in name.chars() {
        if c.is_ascii_uppercase() && after_lower {
            text.push('_');
        }
        after_lower = c.is_ascii_lowercase() || c.is_ascii_digit();
        text.push(if c == '-' {
            '_'
        } else {
            c.to_ascii_lowercase()
        });
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn method(name: &str) -> MethodConfig {
        MethodConfig::named(name).unwrap()
    }

    fn hint(section: &str, key: &str) -> String {
        for_key(section, key, &MethodConfig::default())
    }

    #[test]
    fn every_name_of_another_program_leads_to_a_key_that_exists() {
        for (target, names) in foreign::KEYS {
            let Some((section, key)) = target.split_once('.') else {
                assert!(target.starts_with("--"), "{target}");
                continue;
            };
            let methods = MethodConfig::all();
            let known = methods
                .iter()
                .find(|method| keys_of(section, method).contains(&key));
            let method = known.unwrap_or_else(|| panic!("there is no {target}"));
            for name in names.split(' ') {
                for place in SECTIONS {
                    let expected = match place == section {
                        true => format!("did you mean `{key}`?"),
                        false => format!("did you mean `{target}`?"),
                    };
                    assert_eq!(
                        for_key(place, name, method),
                        expected,
                        "{name} in [{place}]"
                    );
                }
            }
        }
        for (section, _) in foreign::SECTIONS {
            assert!(SECTIONS.contains(&section), "{section}");
        }
        for (section, _, key) in SECOND_NAMES {
            assert!(
                keys_of(section, &MethodConfig::default()).contains(&key),
                "{key}"
            );
        }
    }

    #[test]
    fn each_name_stands_for_one_key() {
        let names = foreign::KEYS.iter().flat_map(|(_, names)| names.split(' '));
        let mut names: Vec<_> = names.collect();
        names.sort();
        let all = names.len();
        names.dedup();
        assert_eq!(names.len(), all, "a name stands twice");
    }

    #[test]
    fn what_has_no_key_here_has_no_hint() {
        let names = "packing lora_r lora_alpha lora_dropout deepspeed fsdp tf32 flash_attention load_in_4bit \
                     load_in_8bit push_to_hub hub_model_id neftune_noise_alpha label_smoothing_factor \
                     dataloader_num_workers dataloader_drop_last remove_unused_columns ddp_timeout \
                     torch_compile save_only_model eval_on_start disable_tqdm wandb_project sample_packing \
                     num_workers do_train do_eval overwrite_output_dir local_rank run_name special_tokens x";
        for name in names.split(' ').chain([""]) {
            for section in SECTIONS {
                assert_eq!(hint(section, name), "", "{name} in [{section}]");
            }
        }
    }

    #[test]
    fn a_misspelt_key_is_recognised() {
        for (section, written, expected) in [
            ("train", "learnig_rate", "did you mean `learning_rate`?"),
            ("train", "sed", "did you mean `seed`?"),
            (
                "train",
                "num-train-epochs",
                "did you mean `num_train_epochs`?",
            ),
            (
                "train",
                "numTrainEpochs",
                "did you mean `num_train_epochs`?",
            ),
            ("train", "per_device_batch_size", ""),
            ("train", "max_lenght", "did you mean `data.max_length`?"),
            ("data", "max_lenght", "did you mean `max_length`?"),
            (
                "method",
                "num_virtual_token",
                "did you mean `num_virtual_tokens`?",
            ),
        ] {
            assert_eq!(hint(section, written), expected, "{written}");
        }
    }

    #[test]
    fn a_key_in_the_wrong_place_is_sent_to_its_own() {
        assert_eq!(hint("data", "seed"), "it belongs in [train]");
        assert_eq!(hint("train", "dtype"), "it belongs in [model]");
        assert_eq!(hint("train", "type"), "it belongs in [method] or [task]");
        assert_eq!(
            hint("method", "prefix_projection"),
            "it is an option of prefix-tuning"
        );
        assert_eq!(for_key("method", "pre_seq_len", &method("bitfit")), "");
        assert_eq!(for_section("seed"), "`seed` belongs in [train]");
        assert_eq!(
            for_section("base_model_name_or_path"),
            "did you mean `model.path`?"
        );
        assert_eq!(for_section("trian"), "did you mean [train]?");
        assert_eq!(for_section("training"), "did you mean [train]?");
        assert_eq!(
            for_section("lora"),
            "the sections are [model], [method], [task], [data], [train], [output]"
        );
        assert_eq!(
            for_section("resume_from_checkpoint"),
            "there is a flag for it, --resume"
        );
    }
}
