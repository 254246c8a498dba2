//! Prompt Tuning without the command line: train a soft prompt, save it for PEFT, use it.
//!
//! `cargo run --release --example prompt_tuning`

use std::{ops::ControlFlow, path::Path, sync::Arc};

use burn::{backend::Autodiff, data::dataset::InMemDataset, tensor::DType};
use burn_flex::Flex;
use burn_peft::{InitTokens, MethodConfig, PeftModel};
use burn_peft_data::{
    BatchOrder, Padding, StepLoader, TextTokenizer, TokenizeOptions, read_rows, tokenize_rows,
};
use burn_peft_decoder::{Checkpoint, GenerationOptions};
use burn_peft_format::{ModelCard, folder_from_adapter};
use burn_peft_train::{FitOptions, Plan, RunConfig, Trainee, fit, left_padded};

type B = Autodiff<Flex>;

fn main() -> anyhow::Result<()> {
    let assets = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets");
    let device = Default::default();
    let checkpoint = Checkpoint::open(assets.join("model"))?;
    let tokenizer = TextTokenizer::load(&assets.join("model"))?;
    let base = checkpoint.load::<B>(DType::F32, &device, &mut |_, _| {})?;

    // The frozen base, and an adapter that owns everything that trains.
    let method = MethodConfig::default();
    let tokens = InitTokens {
        known_ids: tokenizer.vocab_size(),
        ..Default::default()
    };
    let adapter = method.init(&base, &tokens, 0)?;
    let model = PeftModel::new(base, adapter);

    let output = tempfile::tempdir()?;
    let settings = format!(
        "[train]\nper_device_train_batch_size = 16\nmax_steps = 100\nlearning_rate = 3e-1\n\
         [output]\ndir = {:?}",
        output.path()
    );
    let config = RunConfig::parse(&settings, "settings", &[])?;
    let rows = read_rows(&assets.join("task/train.jsonl"))?;
    let options = TokenizeOptions {
        max_length: Some(config.data.max_length),
        ..Default::default()
    };
    let rows = tokenize_rows(&rows, &tokenizer, options, &mut |_, _| {})?;
    let plan = Plan::new(&config.train, rows.examples.len());
    let loader = StepLoader::<B>::new(
        InMemDataset::new(rows.examples),
        BatchOrder::new(config.train.seed, 16, 1),
        Padding::of(&tokenizer),
        plan.total_steps,
        device,
    )?;
    let options = FitOptions::new(&config, plan);
    let (trained, summary) = fit(
        Trainee::new(model),
        Arc::new(loader),
        None,
        &device,
        options,
    )?;
    println!(
        "mean loss over {} steps: {:.4}",
        summary.steps,
        summary.train_loss.unwrap_or(0.0)
    );

    let model = trained.into_model();
    let folder = folder_from_adapter(model.adapter(), &method, checkpoint.config(), None)?;
    folder.save(output.path(), &ModelCard::default())?;

    let prompt = "name: Aromi | eatType: coffee shop | area: city centre\n";
    let ids = tokenizer.encode(prompt)?;
    let options = GenerationOptions::greedy(60, tokenizer.eos_id().into_iter().collect());
    let mut go_on = |_, _| ControlFlow::Continue(());
    let generated = model.generate(left_padded(&[ids.into()], &device), &options, &mut go_on);
    println!("{}", tokenizer.decode(&generated[0].token_ids, true)?);
    Ok(())
}
