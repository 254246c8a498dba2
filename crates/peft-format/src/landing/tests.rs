//! What fits a base, and what a folder lists.

use super::*;
use crate::beft::{TargetModules, beft_bias_name};
use crate::task::CAUSAL_BACKBONE;
use crate::test_support::{base, folder};
use crate::{PTuningOptions, VirtualTokenOptions};
use burn::tensor::TensorData;
use burn_flex::Flex;
use burn_peft::{LayerModule, NoAdapter};

fn prompt(tensors: &[(&str, &[usize])]) -> AdapterFolder {
    let tokens = VirtualTokenOptions::prompt(3, &base());
    folder(
        MethodOptions::PromptTuning(PromptTuningOptions::new(tokens)),
        tensors,
    )
}

fn prefix(tokens: VirtualTokenOptions, columns: usize) -> AdapterFolder {
    let method = MethodOptions::PrefixTuning(PrefixTuningOptions::new(tokens));
    folder(method, &[(PROMPT_EMBEDDINGS, &[3, columns])])
}

fn problems(folder: &AdapterFolder) -> Vec<String> {
    match folder.check(&base(), Path::new("a")) {
        Ok(()) => Vec::new(),
        Err(Error::DoesNotFit { problems, .. }) => {
            problems.iter().map(Problem::to_string).collect()
        }
        Err(other) => panic!("{other}"),
    }
}

#[test]
fn prompts_are_as_wide_as_the_hidden_states() {
    assert!(problems(&prompt(&[(PROMPT_EMBEDDINGS, &[3, 24])])).is_empty());
    let options = PTuningOptions::new(VirtualTokenOptions::prompt(3, &base()));
    assert!(
        problems(&folder(
            MethodOptions::PTuning(options),
            &[(PROMPT_EMBEDDINGS, &[3, 24])]
        ))
        .is_empty()
    );
    assert_eq!(
        problems(&prompt(&[(PROMPT_EMBEDDINGS, &[4, 24])])),
        ["tensor `prompt_embeddings` has shape [4, 24], expected [3, 24]"]
    );
}

#[test]
fn every_problem_is_reported_at_once() {
    let mut wrong = prompt(&[("extra", &[1]), ("prompt_embedding", &[3, 24])]);
    if let MethodOptions::PromptTuning(options) = &mut wrong.config.method {
        options.virtual_tokens.num_layers = Some(28);
        options.virtual_tokens.token_dim = Some(1536);
        options.virtual_tokens.num_transformer_submodules = Some(2);
    }
    let error = wrong.check(&base(), Path::new("a")).unwrap_err();
    assert_eq!(
        error.to_string(),
        "a: the adapter does not fit the base model; it was trained on `some/base`: \
         `num_transformer_submodules` is 2, expected 1; \
         `num_layers` is 28, expected 2; `token_dim` is 1536, expected 24; tensor `extra` [1] is unexpected; \
         tensor `prompt_embedding` [3, 24] is unexpected; and 1 more"
    );
}

#[test]
fn a_prefix_may_have_either_number_of_heads() {
    let grouped = prefix(VirtualTokenOptions::prefix(3, &base()), 48);
    assert!(problems(&grouped).is_empty());
    let full = prefix(VirtualTokenOptions::attention_prefix(3, &base()), 96);
    assert!(problems(&full).is_empty());
}

#[test]
fn a_prefix_must_be_as_wide_as_its_configuration_says() {
    let found = problems(&prefix(VirtualTokenOptions::prefix(3, &base()), 96));
    assert_eq!(
        found,
        ["tensor `prompt_embeddings` has shape [3, 96], expected [3, 48]"]
    );
    let unsaid = VirtualTokenOptions {
        token_dim: None,
        ..VirtualTokenOptions::prefix(3, &base())
    };
    assert!(problems(&prefix(unsaid.clone(), 96)).is_empty());
    assert_eq!(
        problems(&prefix(unsaid, 95)),
        ["tensor `prompt_embeddings` has shape [3, 95], expected [3, 48] or [3, 96]"]
    );
}

#[test]
fn a_prefix_split_into_other_heads_is_refused() {
    let tokens = VirtualTokenOptions {
        num_attention_heads: Some(4),
        ..VirtualTokenOptions::prefix(3, &base())
    };
    assert_eq!(
        problems(&prefix(tokens, 48)),
        ["`num_attention_heads` is 4, expected 2"]
    );
}

/// A BEFT folder of these targets that holds these biases, each of this width.
fn beft(targets: &[&str], held: &[(usize, LayerModule, usize)]) -> AdapterFolder {
    let target_modules = targets.iter().map(|target| target.to_string()).collect();
    beft_with(TargetModules::Names(target_modules), held)
}

fn beft_with(target_modules: TargetModules, held: &[(usize, LayerModule, usize)]) -> AdapterFolder {
    let method = MethodOptions::Beft(BeftOptions::new(target_modules));
    let mut folder = folder(method, &[]);
    for &(layer, kind, width) in held {
        let tensor = AdapterTensor::new([1, width], vec![0.0; width]);
        let name = beft_bias_name(CAUSAL_BACKBONE, layer, kind);
        folder.tensors.insert(name, tensor);
    }
    folder
}

#[test]
fn every_kind_of_bias_fits_under_its_name_and_under_its_paths() {
    for (kind, width) in LayerModule::ALL
        .into_iter()
        .zip([24, 12, 12, 24, 40, 40, 24, 24, 24])
    {
        let both = [(0, kind, width), (1, kind, width)];
        assert!(problems(&beft(&[kind.name()], &both)).is_empty(), "{kind}");
        let last = kind.module_path(1);
        assert!(problems(&beft(&[&last], &both[1..])).is_empty(), "{kind}");
        let unexpected = problems(&beft(&[&last], &both));
        assert_eq!(unexpected.len(), 1, "{kind}: {unexpected:?}");
        let missing = problems(&beft(&[kind.name()], &both[1..]));
        let name = beft_bias_name(CAUSAL_BACKBONE, 0, kind);
        assert_eq!(
            missing,
            [format!(
                "tensor `{name}` is missing, expected with shape [1, {width}]"
            )]
        );
    }
}

#[test]
fn targets_are_ends_of_paths() {
    let both = [(0, LayerModule::KProj, 12), (1, LayerModule::KProj, 12)];
    for targets in [
        &["k_proj"][..],
        &["self_attn.k_proj"],
        &["layers.0.self_attn.k_proj", "1.self_attn.k_proj"],
        &["k_proj", "k_proj", "model.layers.1.self_attn.k_proj"],
    ] {
        assert!(problems(&beft(targets, &both)).is_empty(), "{targets:?}");
    }
    // Not an end at a dot, and a layer that is not there.
    for target in ["proj", "layers.2.self_attn.k_proj", "lm_head"] {
        let found = problems(&beft(&["k_proj", target], &both));
        assert_eq!(
            found,
            [format!(
                "`target_modules` is `{target}`, expected any of q_proj, k_proj, v_proj, \
                 o_proj, gate_proj, up_proj, down_proj, input_layernorm, \
                 post_attention_layernorm in layers 0 to 1"
            )]
        );
    }
}

#[test]
fn every_problem_of_biases_is_reported_at_once() {
    let held = [
        (0, LayerModule::QProj, 12),
        (1, LayerModule::QProj, 24),
        (2, LayerModule::UpProj, 40),
    ];
    let found = problems(&beft(&["q_proj", "up_proj", "bias"], &held));
    let named = |part: &str| found.iter().filter(|line| line.contains(part)).count();
    assert_eq!(found.len(), 5, "{found:?}");
    assert_eq!(named("has shape [1, 12], expected [1, 24]"), 1, "{found:?}");
    assert_eq!(
        named("layers.2.mlp.up_proj.beft_bias` [1, 40] is unexpected"),
        1
    );
    assert_eq!(named("up_proj.beft_bias` is missing"), 2, "{found:?}");
    assert_eq!(named("`target_modules` is `bias`"), 1, "{found:?}");
}

#[test]
fn a_pattern_says_which_biases_there_are() {
    let pattern = |text: &str| TargetModules::Pattern(text.into());
    let keys_and_queries = pattern(r".*layers\.1\.self_attn\.(q|k)_proj");
    let held = [(1, LayerModule::QProj, 24), (1, LayerModule::KProj, 12)];
    let found = |targets: &TargetModules, held| problems(&beft_with(targets.clone(), held));
    assert!(found(&keys_and_queries, &held).is_empty());
    assert!(found(&keys_and_queries, &held[1..])[0].contains("q_proj.beft_bias` is missing"));
    let narrower = pattern(r".*layers\.1\.self_attn\.k_proj");
    assert!(found(&narrower, &held)[0].contains("q_proj.beft_bias` [1, 24] is unexpected"));
    let wrong = [(1, LayerModule::QProj, 12), held[1]];
    assert!(found(&keys_and_queries, &wrong)[0].contains("has shape [1, 12]"));
    for spoiled in ["(", ".*lm_head"] {
        let problems = found(&pattern(spoiled), &[]);
        assert_eq!(problems.len(), 1, "{problems:?}");
        let begins = format!("`target_modules` is `{spoiled}`");
        assert!(problems[0].starts_with(&begins), "{problems:?}");
    }
}

fn modules(method: MethodOptions, tensors: &[(&str, &[usize])]) -> ModuleListing {
    let folder = folder(method, tensors);
    let modules = folder.modules();
    assert_eq!(modules.num_parameters(), folder.tensors.num_values());
    modules
}

#[test]
fn a_folder_of_p_tuning_holds_the_encoders_output_and_no_encoder() {
    let options = PTuningOptions::new(VirtualTokenOptions::prompt(3, &base()));
    let method = MethodOptions::PTuning(options);
    let found = modules(
        method,
        &[(PROMPT_EMBEDDINGS, &[3, 24]), ("score.weight", &[2, 8])],
    );
    assert_eq!(
        found.to_string(),
        "PromptEncoder(  # score.weight [2, 8]\n  (embedding): Embedding(3, 24)  # weight [3, 24]\n)\n"
    );
}

#[test]
fn layers_with_the_same_biases_stand_on_one_line() {
    let layer = |layer| format!("base_model.model.model.layers.{layer}.mlp.up_proj.beft_bias");
    let names = [0, 1, 3].map(layer);
    let tensors = names.each_ref().map(|name| (name.as_str(), &[1, 16][..]));
    let found = modules(MethodOptions::Beft(BeftOptions::default()), &tensors);
    let expected = "\
BitFit(
  (layers): ModuleList(
    (0-1): 2 x BiasDeltas(
      (up_proj): Bias(16)  # bias [16]
    )
    (3): BiasDeltas(
      (up_proj): Bias(16)  # bias [16]
    )
  )
)
";
    assert_eq!(found.to_string(), expected);
}

#[test]
fn an_adapter_is_saved_by_what_it_injects_and_read_again() {
    let (base, device) = (base(), Default::default());
    let numbers = |count: usize| (0..count).map(|i| i as f32).collect::<Vec<_>>();
    let table = |shape: [usize; 2]| TensorData::new(numbers(shape[0] * shape[1]), shape);
    let delta = TensorData::new(numbers(12), [12]);
    let deltas = [(1, LayerModule::KProj, delta)];
    for (adapter, peft_type) in [
        (
            AnyAdapter::PromptTuning(PromptTuning::from_data(table([3, 24]), &device)),
            "PROMPT_TUNING",
        ),
        (
            AnyAdapter::Prefix(Prefix::from_data(table([3, 48]), &base, &device)),
            "PREFIX_TUNING",
        ),
        (
            AnyAdapter::BitFit(BitFit::from_data(deltas, &base, &device)),
            "BEFT",
        ),
    ] {
        let save = |adapter: &AnyAdapter<Flex>| {
            AdapterFolder::from_adapter(adapter, &base, None, MethodOptions::of).unwrap()
        };
        let folder = save(&adapter);
        assert_eq!(folder.config.method.peft_type(), peft_type);
        let again = adapter_from_folder(&folder, &base, Path::new("a"), &device).unwrap();
        assert_eq!(save(&again), folder, "{peft_type}");
    }
    let nothing = NoAdapter::<Flex>::default();
    let error = AdapterFolder::from_adapter(&nothing, &base, None, MethodOptions::of);
    assert!(matches!(error, Err(Error::NothingToSave)));
}
