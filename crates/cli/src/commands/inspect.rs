//! `inspect`: what a model and an adapter are made of, without reading the model's weights.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use anyhow::Result;
use burn_peft::{MethodConfig, ModuleListing};
use burn_peft_decoder::{Checkpoint, DecoderConfig};
use burn_peft_format::{BiasMovement, CONFIG_FILE, TaskOptions, TaskType, WEIGHTS_FILE};
use burn_peft_train::TaskSetup;
use serde::Serialize;

use super::{
    adapter, biases,
    shared::{display, method_config},
};
use crate::{
    output,
    source::{self, ModelSource},
};

/// Arguments of `inspect`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Model folder, its config.json, or adapter: a folder or a hub id.
    path: PathBuf,
    /// Base model of an adapter folder: checks that the adapter fits, and counts all parameters.
    #[arg(long)]
    model: Option<String>,
    /// List the modules that this method would train on the model, and count their parameters.
    #[arg(long, value_name = "M")]
    method: Option<String>,
    /// Number of virtual tokens of the method.
    #[arg(long, value_name = "N")]
    num_virtual_tokens: Option<usize>,
    /// Set an option of the method, as in --set method.num_virtual_tokens=10.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
    #[command(flatten)]
    biases: biases::Args,
    /// Print one JSON object to stdout.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize, Default)]
struct Report {
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    method: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    base_model: Option<String>,
    /// Of an adapter: what it is for, and under PEFT's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    task: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    task_type: Option<&'static str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    labels: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    task_options: Option<TaskOptions>,
    #[serde(skip_serializing_if = "Option::is_none")]
    template: Option<String>,
    #[serde(skip)]
    task_line: Option<String>,
    trainable_params: usize,
    /// Unknown for an adapter whose base was not named.
    all_params: Option<usize>,
    tensors: BTreeMap<String, Vec<usize>>,
    /// The base's modules, where it is known, and the adapter's, where there is one.
    #[serde(skip)]
    modules: Vec<ModuleListing>,
    #[serde(skip_serializing_if = "Option::is_none")]
    biases: Option<Vec<BiasMovement>>,
    /// How this machine would run a model on the CPU.
    #[serde(skip_serializing_if = "Option::is_none")]
    cpu: Option<Cpu>,
}

#[derive(Serialize)]
struct Cpu {
    threads: usize,
    /// Numbers in a vector.
    f32_lanes: usize,
    /// The instructions by which bf16 weights are multiplied: AMX, AVX512-BF16 or f32.
    bf16_products: &'static str,
}

impl Cpu {
    fn here() -> Self {
        Self {
            threads: rayon::current_num_threads(),
            f32_lanes: burn_peft_ops::f32_lanes(),
            bf16_products: burn_peft_ops::bf16_products(),
        }
    }
}

pub(crate) fn run(args: Args) -> Result<()> {
    let is_adapter =
        |path: &Path| path.join(CONFIG_FILE).exists() || !path.join("config.json").exists();
    let report = if !args.path.exists() || (args.path.is_dir() && is_adapter(&args.path)) {
        args.adapter_report()?
    } else if args.path.is_file() {
        let text = burn_peft_files::read_to_string(&args.path)?;
        args.model_report(&DecoderConfig::parse(&text, &args.path)?)?
    } else {
        args.model_report(&model_config(&args.path)?)?
    };
    if args.json {
        output::print_json(&report)
    } else {
        output::print_report(&report.to_text())
    }
}

/// The configuration of a model folder; where it holds weights too, they must fit.
fn model_config(folder: &Path) -> Result<DecoderConfig> {
    let weights = ["model.safetensors", "model.safetensors.index.json"];
    if weights.iter().any(|name| folder.join(name).exists()) {
        return Ok(source::open(folder)?.config().clone());
    }
    Ok(Checkpoint::read_config(folder)?)
}

impl Args {
    fn model_report(&self, config: &DecoderConfig) -> Result<Report> {
        self.biases.refuse_model(&self.path)?;
        let base = config.num_parameters();
        let method = self.method_config()?;
        let mut trainable = 0;
        let mut modules = vec![ModuleListing::from(config)];
        if let Some(method) = &method {
            method.check_base(config)?;
            trainable = method.num_trainable(config);
            modules = base_and_adapter(config, method.modules(config));
        }
        Ok(Report {
            kind: "model",
            method: method.map(|m| m.name().to_owned()),
            task: None,
            task_type: None,
            labels: Vec::new(),
            task_options: None,
            template: None,
            task_line: None,
            trainable_params: trainable,
            all_params: Some(base + trainable),
            tensors: config.tensor_shapes().into_iter().collect(),
            modules,
            cpu: Some(Cpu::here()),
            ..Report::default()
        })
    }

    fn adapter_report(&self) -> Result<Report> {
        let folder = adapter::load(&self.path)?;
        for (name, count) in folder.tensors.non_finite() {
            output::warn(&format!(
                "{}: tensor `{name}` has {count} values that are NaN or infinite, so the adapter cannot be used",
                display(&self.path.join(WEIGHTS_FILE))
            ));
        }
        let task = TaskSetup::of_folder(&folder);
        let head = folder.head().map(|head| head.num_values());
        // The biases beside a head alone are zeros.
        let trainable = match head.filter(|_| folder.method_name() == "linear-probe") {
            Some(head) => head,
            None => folder.tensors.num_values(),
        };
        let (base, modules) = match &self.model {
            None => (None, vec![folder.modules()]),
            Some(name) => {
                let source = ModelSource::resolve(Some(name), None)?;
                let checkpoint = source.checkpoint()?;
                let config = checkpoint.config();
                adapter::check_base(&folder, &self.path, &source, None, &checkpoint)?;
                let modules = base_and_adapter(config, folder.modules());
                (Some(config.num_parameters()), modules)
            }
        };
        Ok(Report {
            kind: "adapter",
            method: Some(folder.method_name().to_owned()),
            base_model: folder.config.base_model_name_or_path.clone(),
            task: Some(task.task.name()),
            task_type: folder.config.task_type.map(TaskType::name),
            labels: folder.labels(),
            task_options: folder.config.task.clone(),
            template: folder.config.template.clone(),
            task_line: task.describe(),
            trainable_params: trainable,
            all_params: base.map(|base| base + trainable),
            tensors: folder
                .tensors
                .iter()
                .map(|(name, tensor)| (name.to_owned(), tensor.shape().to_vec()))
                .collect(),
            modules,
            biases: self.biases.report(&folder, &self.path)?,
            cpu: None,
        })
    }

    /// The method asked about, where one is.
    fn method_config(&self) -> Result<Option<MethodConfig>> {
        if self.method.is_none() && self.num_virtual_tokens.is_none() && self.set.is_empty() {
            return Ok(None);
        }
        let tokens = self.num_virtual_tokens.map(|n| (n, "--num-virtual-tokens"));
        method_config(self.method.as_deref(), tokens, &self.set).map(Some)
    }
}

fn base_and_adapter(config: &DecoderConfig, adapter: ModuleListing) -> Vec<ModuleListing> {
    let base = ModuleListing::from(config).note("frozen");
    vec![base, adapter.note("trainable")]
}

impl Report {
    fn to_text(&self) -> String {
        let mut text = match (&self.method, &self.base_model) {
            (Some(method), Some(base)) => format!("{}: {method} for {base}\n", self.kind),
            (Some(method), None) => format!("{}: {method}\n", self.kind),
            (None, _) => format!("{}\n", self.kind),
        };
        if let Some(line) = &self.task_line {
            text += &format!("{line}\n");
        }
        if let Some(template) = &self.template {
            text += &format!("template: {template:?}\n");
        }
        for module in &self.modules {
            text += &module.to_string();
        }
        if let Some(Cpu {
            threads,
            f32_lanes,
            bf16_products,
        }) = self.cpu
        {
            text += &format!(
                "on this CPU: {threads} threads, {f32_lanes} f32 a vector; products of bf16 weights by {bf16_products}\n"
            );
        }
        let trainable = self.trainable_params;
        text += &match self.all_params {
            Some(all) => format!("{}\n", burn_peft::parameter_line(trainable, all)),
            None => {
                format!("trainable params: {trainable}; name the base with --model to count all\n")
            }
        };
        if let Some(movement) = &self.biases {
            text += &biases::to_text(movement);
        }
        text
    }
}
