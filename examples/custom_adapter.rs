//! A method of your own: virtual tokens of low rank, the product of two small matrices.
//!
//! Nothing in the crates knows of it. It implements `Adapter`, and everything else follows: the base stays
//! frozen, the training loop trains what the module owns, and generation calls the same `prepare`.
//!
//! `cargo run --release --example custom_adapter`

use std::{ops::ControlFlow, path::Path, sync::Arc};

use burn::backend::Autodiff;
use burn::data::dataset::InMemDataset;
use burn::module::{Module, Param};
use burn::tensor::{DType, Distribution, Tensor, backend::Backend};
use burn_flex::Flex;
use burn_peft::{Adapter, Injection, PeftModel, VirtualTokens};
use burn_peft_data::{BatchOrder, Padding, StepLoader, TextTokenizer};
use burn_peft_data::{read_rows, tokenize_rows};
use burn_peft_decoder::{Checkpoint, GenerationOptions};
use burn_peft_train::{FitOptions, Plan, RunConfig, Trainee, fit, left_padded};

type B = Autodiff<Flex>;

/// Virtual tokens `tokens · directions`.
#[derive(Module, Debug)]
struct LowRankPrompt<B: Backend> {
    /// `[num_virtual_tokens, rank]`.
    tokens: Param<Tensor<B, 2>>,
    /// `[rank, d_model]`.
    directions: Param<Tensor<B, 2>>,
}

impl<B: Backend> Adapter<B> for LowRankPrompt<B> {
    fn inject(&self) -> Injection<B> {
        let embeddings = self.tokens.val().matmul(self.directions.val());
        Injection::Prompt(VirtualTokens { embeddings })
    }
}

fn main() -> anyhow::Result<()> {
    let assets = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets");
    let device = Default::default();
    let checkpoint = Checkpoint::open(assets.join("model"))?;
    let tokenizer = TextTokenizer::load(&assets.join("model"))?;
    let base = checkpoint.load::<B>(DType::F32, &device, &mut |_, _| {})?;

    let random = |shape| Tensor::random(shape, Distribution::Normal(0.0, 0.1), &device);
    let adapter = LowRankPrompt {
        tokens: Param::from_tensor(random([20, 4])),
        directions: Param::from_tensor(random([4, base.config().hidden_size])),
    };
    println!("{} trainable parameters", adapter.num_params());

    let output = tempfile::tempdir()?;
    let settings = format!(
        "[train]\nmax_steps = 60\nlearning_rate = 3e-2\n[output]\ndir = {:?}",
        output.path()
    );
    let config = RunConfig::parse(&settings, "settings", &[])?;
    let rows = read_rows(&assets.join("task/train.jsonl"))?;
    let rows = tokenize_rows(&rows, &tokenizer, Default::default(), &mut |_, _| {})?.examples;
    let plan = Plan::new(&config.train, rows.len());
    let (dataset, order) = (InMemDataset::new(rows), BatchOrder::new(0, 8, 1));
    let (padding, steps) = (Padding::of(&tokenizer), plan.total_steps);
    let loader = Arc::new(StepLoader::<B>::new(
        dataset, order, padding, steps, device,
    )?);
    let trainee = Trainee::new(PeftModel::new(base, adapter));
    let options = FitOptions::new(&config, plan);
    let (trained, _) = fit(trainee, loader, None, &device, options)?;

    let ids = tokenizer.encode("name: Aromi | eatType: coffee shop | area: city centre\n")?;
    let options = GenerationOptions::greedy(60, tokenizer.eos_id().into_iter().collect());
    let mut go_on = |_, _| ControlFlow::Continue(());
    let inputs = left_padded(&[ids.into()], &device);
    let generated = trained.into_model().generate(inputs, &options, &mut go_on);
    println!("{}", tokenizer.decode(&generated[0].token_ids, true)?);
    Ok(())
}
