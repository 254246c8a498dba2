//! Checkpoints: `DIR/checkpoints/step-N/`, what `--resume` needs and nothing more.
//!
//! ```text
//! step-20/model.mpk            the module's Params: the adapter, never the frozen base
//! step-20/optimizer.mpk        moments of the gradients
//! step-20/scheduler.mpk        updates done
//! step-20/trainer_state.json   TrainerState
//! ```
//!
//! Records are full precision (Burn's compact recorder would store moments as f16). A folder gets
//! its name only when all of it is on the disk: `step-N` is complete or is not there.

mod save;

pub(crate) use save::StepCheckpointer;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use burn::module::{Module, ModuleVisitor, Param};
use burn::record::{FullPrecisionSettings, NamedMpkBytesRecorder, Record, Recorder};
use burn::tensor::backend::Backend;
use burn::tensor::{Device, Tensor};
use burn_peft::PeftModel;
use burn_peft_data::TextTokenizer;
use burn_peft_decoder::Decoder;
use burn_peft_files::{Error as FileError, if_exists};
use burn_peft_ops::Ops;
use burn_train::{
    Learner, LearnerModelRecord, LearnerOptimizerRecord, LearnerSchedulerRecord,
    LearningComponentsTypes, TrainingBackend,
};
use serde::{Deserialize, Serialize};

use crate::{Error, Method, OptimizerKind, Plan, Start, TrainConfig, Trainee};

pub(crate) const MODEL: &str = "model";
pub(crate) const OPTIMIZER: &str = "optimizer";
pub(crate) const SCHEDULER: &str = "scheduler";
pub(crate) const STATE: &str = "trainer_state.json";

type Format = NamedMpkBytesRecorder<FullPrecisionSettings>;

/// What a run knows besides its tensors.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TrainerState {
    /// Steps done; with `steps_per_epoch` and `seed` also the position in the data.
    pub step: usize,
    /// Steps of the run as it was planned then.
    pub total_steps: usize,
    /// Steps of one pass over the rows.
    pub steps_per_epoch: usize,
    /// Epochs done.
    pub epoch: f64,
    /// Seed of the run.
    pub seed: u64,
    /// The optimizer that wrote `optimizer.mpk`.
    pub optim: OptimizerKind,
    /// The lowest evaluation loss so far.
    pub best_eval: Option<BestEval>,
    /// Shape of each parameter in `model.mpk`, by its path in the module.
    pub parameters: BTreeMap<String, Vec<usize>>,
}

/// The lowest evaluation loss of a run, and after which step it was measured.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct BestEval {
    /// Steps done.
    pub step: usize,
    /// Mean over supervised tokens, in nats.
    pub eval_loss: f64,
}

/// A complete checkpoint on the disk.
#[derive(Debug, Clone, PartialEq)]
pub struct Checkpoint {
    /// Its folder.
    pub path: PathBuf,
    /// What the run knew.
    pub state: TrainerState,
}

impl Checkpoint {
    /// The newest complete checkpoint of the run in `output_dir`.
    ///
    /// # Errors
    /// [`Error::NoCheckpoint`] where there is none; [`Error::BadCheckpoint`] where its state cannot
    /// be read.
    pub fn latest(output_dir: &Path) -> Result<Self, Error> {
        match steps_in(&folder(output_dir))?.pop() {
            Some((_, path)) => Self::open(&path),
            None => Err(Error::NoCheckpoint {
                dir: folder(output_dir),
            }),
        }
    }

    /// Makes sure that `output_dir` holds no checkpoint that a new run would mix with its own.
    ///
    /// # Errors
    /// [`Error::OutputInUse`] where it does.
    pub fn none_in(output_dir: &Path) -> Result<(), Error> {
        let dir = folder(output_dir);
        match steps_in(&dir)?.is_empty() {
            true => Ok(()),
            false => Err(Error::OutputInUse { dir }),
        }
    }

    /// The checkpoint in a `step-N` folder.
    ///
    /// # Errors
    /// [`Error::File`] or [`Error::BadCheckpoint`] where its state cannot be read.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let file = path.join(STATE);
        let text = burn_peft_files::read_to_string(&file)?;
        let state = serde_json::from_str(&text).map_err(|error| Error::BadCheckpoint {
            path: file,
            message: error.to_string(),
        })?;
        Ok(Self {
            path: path.into(),
            state,
        })
    }

    /// Puts the saved parameters into `model`, as for evaluating a checkpoint.
    ///
    /// # Errors
    /// [`Error::ResumeMismatch`] where a parameter has another name or shape, and as [`open`](Self::open).
    pub fn load_model<B: Backend, M: Module<B>>(
        &self,
        model: M,
        device: &Device<B>,
    ) -> Result<M, Error> {
        self.check_parameters::<B, M>(&model)?;
        Ok(model.load_record(self.read::<B, M::Record>(MODEL, device)?))
    }

    /// The model that was saved: `base` with the method's own module, as it was trained.
    ///
    /// # Errors
    /// As [`load_model`](Self::load_model), and where the module cannot be made.
    pub fn load_adapter<B: Ops, M: Method>(
        &self,
        method: &M,
        base: Decoder<B>,
        tokenizer: &TextTokenizer,
    ) -> Result<PeftModel<B, M::Adapter<B>>, Error> {
        let device = base.device();
        let start = Start {
            base: &base,
            tokenizer,
            seed: self.state.seed,
        };
        let adapter = method.init(start)?;
        let trainee = Trainee::new(PeftModel::new(base, adapter));
        Ok(self.load_model(trainee, &device)?.into_model())
    }

    /// Puts model, optimizer and scheduler back to where they were: the model first, because the
    /// optimizer's state is keyed by parameter ids, which come with the model's record.
    pub(crate) fn restore<LC: LearningComponentsTypes>(
        &self,
        learner: &mut Learner<LC>,
        device: &Device<TrainingBackend<LC>>,
    ) -> Result<(), Error> {
        self.check_parameters::<TrainingBackend<LC>, _>(&learner.model())?;
        learner.load_model(self.read::<_, LearnerModelRecord<LC>>(MODEL, device)?);
        learner.load_optim(self.read::<_, LearnerOptimizerRecord<LC>>(OPTIMIZER, device)?);
        learner.load_scheduler(self.read::<_, LearnerSchedulerRecord<LC>>(SCHEDULER, device)?);
        Ok(())
    }

    /// Refuses to go on with other data, where a step number would mean another position, and with
    /// another optimizer, which could not read the state of this one.
    pub(crate) fn check_run(&self, plan: &Plan, config: &TrainConfig) -> Result<(), Error> {
        let state = &self.state;
        self.same("train.seed", state.seed, config.seed)?;
        self.same("train.optim", state.optim, config.optim)?;
        self.same(
            "the number of steps of an epoch",
            state.steps_per_epoch,
            plan.steps_per_epoch,
        )
    }

    fn check_parameters<B: Backend, M: Module<B>>(&self, model: &M) -> Result<(), Error> {
        let (saved, own) = (&self.state.parameters, parameter_shapes::<B, M>(model));
        for (name, shape) in saved {
            let what = format!("the shape of {name}");
            let Some(found) = own.get(name) else {
                // Older versions had other names for the parameters of some methods.
                let what = format!("{what} (another method, or an older version, saved it)");
                return self.same(&what, format!("{shape:?}"), "absent".into());
            };
            self.same(&what, format!("{shape:?}"), format!("{found:?}"))?;
        }
        match own.keys().find(|name| !saved.contains_key(*name)) {
            Some(name) => self.same(name, "absent", "a parameter"),
            None => Ok(()),
        }
    }

    fn same<T: ToString + PartialEq>(&self, what: &str, saved: T, found: T) -> Result<(), Error> {
        if saved == found {
            return Ok(());
        }
        Err(Error::ResumeMismatch {
            path: self.path.clone(),
            what: what.into(),
            saved: saved.to_string(),
            found: found.to_string(),
        })
    }

    fn read<B: Backend, R: Record<B>>(&self, part: &str, device: &Device<B>) -> Result<R, Error> {
        let path = self.path.join(format!("{part}.mpk"));
        let bytes = burn_peft_files::read(&path)?;
        Recorder::<B>::load(&Format::default(), bytes, device).map_err(|error| {
            Error::BadCheckpoint {
                path,
                message: error.to_string(),
            }
        })
    }
}

/// Where a run keeps its checkpoints.
pub(crate) fn folder(output_dir: &Path) -> PathBuf {
    output_dir.join("checkpoints")
}

/// The complete checkpoints in a folder, oldest step first.
pub(crate) fn steps_in(folder: &Path) -> Result<Vec<(usize, PathBuf)>, Error> {
    let entries = if_exists(fs::read_dir(folder)).map_err(FileError::to("read", folder))?;
    let mut found = Vec::new();
    for entry in entries.into_iter().flatten() {
        let path = entry.map_err(FileError::to("read", folder))?.path();
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        let step = name
            .strip_prefix("step-")
            .and_then(|step| step.parse().ok());
        if let Some(step) = step.filter(|_| path.join(STATE).is_file()) {
            found.push((step, path));
        }
    }
    found.sort();
    Ok(found)
}

/// The shape of each trainable parameter, by its path in the module.
pub(crate) fn parameter_shapes<B: Backend, M: Module<B>>(
    model: &M,
) -> BTreeMap<String, Vec<usize>> {
    let mut shapes = Shapes::default();
    model.visit(&mut shapes);
    shapes.found
}

#[derive(Default)]
struct Shapes {
    path: Vec<String>,
    found: BTreeMap<String, Vec<usize>>,
}

impl<B: Backend> ModuleVisitor<B> for Shapes {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        self.found
            .insert(self.path.join("."), param.val().dims().to_vec());
    }

    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.into());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }
}
