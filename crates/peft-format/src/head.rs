//! The head of an adapter: the linear layer that PEFT saves beside it for classification and questions.
//!
//! transformers calls it `score` or `qa_outputs`, and PEFT puts `base_model.` in front, and `base_model.model.` where
//! the adapter wraps the model's layers, as BEFT does.

use std::path::Path;

use burn::tensor::{TensorData, backend::Backend};
use burn_peft::{Head, ModuleListing};
use burn_peft_decoder::DecoderConfig;

use crate::beft::rename_backbone;
use crate::folder::AdapterFolder;
use crate::landing::Shapes;
use crate::method::MethodOptions;
use crate::peft_type::Landing;
use crate::task::{CAUSAL_BACKBONE, HeadLayout, TaskType};
use crate::tensors::AdapterTensor;
use crate::{Error, Problem};

/// The tensors of a head.
#[derive(Debug, Clone, PartialEq)]
pub struct HeadTensors {
    /// `[outputs, d_model]`.
    pub weight: AdapterTensor,
    /// `[outputs]`; sequence classification has none.
    pub bias: Option<AdapterTensor>,
}

impl HeadTensors {
    /// The values of a head, on the host.
    pub fn of<B: Backend>(head: &Head<B>) -> Self {
        let tensor = |data: TensorData| {
            AdapterTensor::new(data.shape.to_vec(), data.iter::<f32>().collect())
        };
        let (weight, bias) = head.values();
        Self {
            weight: tensor(weight),
            bias: bias.map(tensor),
        }
    }

    /// The number of outputs.
    pub fn outputs(&self) -> usize {
        self.weight.shape().first().copied().unwrap_or(0)
    }
}

/// The names of the weight and the bias of this head in the folder of this method.
fn names(layout: HeadLayout, method: &MethodOptions) -> [String; 2] {
    let wrapped = match method.landing() {
        Landing::Prompt(_) | Landing::Prefix(_) => "base_model",
        Landing::Biases(_) => "base_model.model",
    };
    ["weight", "bias"].map(|parameter| format!("{wrapped}.{}.{parameter}", layout.module))
}

impl AdapterFolder {
    /// The task, its head and the names of the head's tensors, where the task has a head.
    pub(crate) fn head_layout(&self) -> Option<(HeadLayout, [String; 2])> {
        let layout = self.config.task_type?.head()?;
        Some((layout, names(layout, &self.config.method)))
    }

    /// The head, where the task has one and it is there. Whether it fits, [`check`](Self::check) says.
    pub fn head(&self) -> Option<HeadTensors> {
        let (_, [weight, bias]) = self.head_layout()?;
        Some(HeadTensors {
            weight: self.tensors.get(&weight)?.clone(),
            bias: self.tensors.get(&bias).cloned(),
        })
    }

    /// The names of the classes, in the order of the head's outputs or of the verbalizer's texts: those of the
    /// configuration, or else `LABEL_0`, `LABEL_1` and so on, as in transformers. None where there are no classes.
    pub fn labels(&self) -> Vec<String> {
        match &self.config.task {
            Some(task) if !task.labels.is_empty() => task.labels.clone(),
            _ => {
                let counted = |layout: &HeadLayout| layout.outputs.is_none();
                let has_classes = self.head_layout().is_some_and(|(head, _)| counted(&head));
                let outputs = self.head().filter(|_| has_classes);
                let outputs = outputs.map_or(0, |head| head.outputs());
                (0..outputs).map(|class| format!("LABEL_{class}")).collect()
            }
        }
    }

    /// The same adapter with a head for `task`, under the names that PEFT has for both.
    ///
    /// # Panics
    /// If the task has no head, or the adapter has one already.
    #[must_use]
    pub fn with_head(mut self, task: TaskType, head: HeadTensors) -> Self {
        assert!(self.head_layout().is_none(), "an adapter has one head");
        self.config = self.config.with_task(task);
        let (layout, [weight, bias]) = self.head_layout().expect("a task that has a head");
        if layout.backbone != CAUSAL_BACKBONE {
            rename_backbone(&mut self, layout.backbone);
        }
        self.tensors.insert(weight, head.weight);
        if let Some(values) = head.bias {
            self.tensors.insert(bias, values);
        }
        self
    }

    /// Whether the head is all that was trained: it stands beside biases that are all zero.
    pub fn is_linear_probe(&self) -> bool {
        let biases = self.biases();
        let zero = |values: &[f32]| values.iter().all(|value| *value == 0.0);
        self.head().is_some()
            && !biases.is_empty()
            && biases.iter().all(|(_, _, values)| zero(values))
    }

    /// Adds what the head must be for this base to `expected`.
    pub(crate) fn expect_head(
        &self,
        base: &DecoderConfig,
        expected: &mut Shapes,
        problems: &mut Vec<Problem>,
    ) {
        let task = self.config.task.as_ref();
        let labels = task.map_or(0, |task| task.labels.len());
        let Some((layout, [weight, bias])) = self.head_layout() else {
            problems.extend(task.into_iter().flat_map(|task| task.problems(None)));
            return;
        };
        // The task says how many rows there are, or the tensors do, or else the labels.
        let rows = |name: &String| match self.tensors.get(name).map(AdapterTensor::shape) {
            Some(&[rows, ..]) if rows > 0 => Some(rows),
            _ => None,
        };
        let found = rows(&weight).or_else(|| rows(&bias));
        let outputs = layout.outputs.or(found).unwrap_or(labels.max(1));
        problems.extend(task.into_iter().flat_map(|task| task.problems(Some(outputs))));
        expected.insert(weight, vec![vec![outputs, base.hidden_size]]);
        if layout.has_bias {
            expected.insert(bias, vec![vec![outputs]]);
        }
    }

    /// Says that a head would be lost in this form.
    pub(crate) fn refuse_head(&self, form: &'static str, path: &Path) -> Result<(), Error> {
        match self.config.task_type.filter(|task| task.has_head()) {
            None => Ok(()),
            Some(task) => Err(Error::HasHead {
                path: path.into(),
                task: task.name(),
                form,
            }),
        }
    }

    /// The head among the modules, and whether a tensor is of it.
    pub(crate) fn list_head(&self, modules: ModuleListing) -> (ModuleListing, Vec<String>) {
        let Some((layout, names)) = self.head_layout() else {
            return (modules, Vec::new());
        };
        match self.head() {
            Some(HeadTensors { weight, bias }) if weight.shape().len() == 2 => {
                let (shape, has_bias) = (weight.shape(), bias.is_some());
                if bias.is_some_and(|bias| bias.shape() != &shape[..1]) {
                    return (modules, Vec::new());
                }
                let linear = ModuleListing::linear([shape[1], shape[0]], has_bias);
                (modules.child(layout.module, linear), names.to_vec())
            }
            _ => (modules, Vec::new()),
        }
    }
}

/// The head that a folder holds, trainable; `None` where its task has none. `path` is for messages.
///
/// # Errors
/// A folder that does not fit the base, or has values that are no numbers.
pub fn head_from_folder<B: Backend>(
    folder: &AdapterFolder,
    base: &DecoderConfig,
    path: &Path,
    device: &B::Device,
) -> Result<Option<Head<B>>, Error> {
    folder.check(base, path)?;
    folder.check_values(path)?;
    let data = |tensor: &AdapterTensor| {
        TensorData::new(tensor.values().to_vec(), tensor.shape().to_vec())
    };
    Ok(folder.head().map(|head| {
        let bias = head.bias.as_ref().map(data);
        Head::from_data(data(&head.weight), bias, device)
    }))
}
