//! A method of your own: virtual tokens of low rank, the product of two small matrices.
//!
//! The crates know nothing of it. It is trained, stopped, resumed and saved like any other, and another process
//! writes a text with it: `cargo run --release --example custom_adapter`

use std::{env, path::Path, path::PathBuf, process::Command};

use burn::module::{Module, Param};
use burn::tensor::{DType, Distribution, Tensor};
use burn::{backend::Autodiff, tensor::backend::Backend};
use burn_flex::Flex;
use burn_peft::{Adapter, Injection, PeftModel, VirtualTokens};
use burn_peft_data::{TextTokenizer, read_rows};
use burn_peft_decoder::Checkpoint as Base;
use burn_peft_format::{AdapterFolder, adapter_from_folder};
use burn_peft_ops::Ops;
use burn_peft_train::{Checkpoint, Error, LogRecord, Method, RunConfig, RunInputs, RunOptions};
use burn_peft_train::{Start, complete, prompts_and_references, run_method, stop_ids};

/// What trains: virtual tokens `tokens · directions`.
#[derive(Module, Debug)]
struct LowRankPrompt<B: Backend> {
    tokens: Param<Tensor<B, 2>>,     // [num_virtual_tokens, rank]
    directions: Param<Tensor<B, 2>>, // [rank, d_model]
}

impl<B: Backend> Adapter<B> for LowRankPrompt<B> {
    fn inject(&self) -> Injection<B> {
        let embeddings = self.tokens.val().matmul(self.directions.val());
        Injection::Prompt(VirtualTokens { embeddings })
    }
}

/// The method, with its options.
struct LowRank {
    rank: usize,
}

impl Method for LowRank {
    type Adapter<B: Backend> = LowRankPrompt<B>;
    fn name(&self) -> &str {
        "low-rank-prompt"
    }
    fn num_virtual_tokens(&self) -> usize {
        20
    }
    fn init<B: Ops>(&self, start: Start<'_, B>) -> Result<LowRankPrompt<B>, Error> {
        let (spread, device) = (Distribution::Normal(0.0, 0.1), start.base.device());
        let random = |shape| Param::from_tensor(Tensor::random(shape, spread, &device));
        Ok(LowRankPrompt {
            tokens: random([20, self.rank]),
            directions: random([self.rank, start.base.config().hidden_size]),
        })
    }
}

fn main() -> anyhow::Result<()> {
    let assets = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets");
    let base = Base::open(assets.join("model"))?;
    let tokenizer = TextTokenizer::load(&assets.join("model"))?;
    let rows = read_rows(&assets.join("task/train.jsonl"))?;
    let (method, device) = (LowRank { rank: 4 }, Default::default());

    let Some(dir) = env::args().nth(1).map(PathBuf::from) else {
        let dir = tempfile::tempdir()?;
        let mut config = RunConfig::default();
        config.output.dir = Some(dir.path().into());
        (config.train.max_steps, config.train.learning_rate) = (60, Some(3e-2));
        let inputs = RunInputs::new(base, tokenizer, rows);
        let train =
            |options| run_method::<Autodiff<Flex>, _>(&method, &config, &inputs, options, &device);
        let mut options = RunOptions::default();
        let stop = options.stop.clone();
        // Stops at the first logged step, as Ctrl-C does.
        options.observers.push(Box::new(move |_: &LogRecord| {
            stop.request();
            Ok(())
        }));
        println!("stopped after {} steps", train(options)?.summary.steps);
        let resumed = train(RunOptions::resuming())?.summary;
        println!("resumed, {} steps in all", resumed.steps);
        let status = Command::new(env::current_exe()?).arg(dir.path()).status()?;
        anyhow::ensure!(status.success());
        return Ok(());
    };

    let model = base.load::<Flex>(DType::F32, &device, &mut |_, _| {})?;
    let prompts = prompts_and_references(&rows, None).unwrap_or_default();
    let stop = stop_ids(&base, &tokenizer);
    // The folder holds what the module injects (PEFT's PROMPT_TUNING), the checkpoint the module.
    let saved = adapter_from_folder(&AdapterFolder::load(&dir)?, base.config(), &dir, &device)?;
    let saved = PeftModel::new(model.clone(), saved);
    let saved = complete(&saved, &tokenizer, &prompts[..1], 1, &stop, &mut |_| {})?;
    let own = Checkpoint::latest(&dir, &mut |_| {})?.load_adapter(&method, model, &tokenizer)?;
    let own = complete(&own, &tokenizer, &prompts[..1], 1, &stop, &mut |_| {})?;
    println!("{}{}", own[0].prompt, own[0].text);
    anyhow::ensure!(own == saved);
    Ok(())
}
