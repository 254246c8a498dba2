//! The head of an adapter: the linear layer that PEFT saves beside it for classification and questions.
//!
//! transformers calls it `score` or `qa_outputs`, and PEFT puts `base_model.` in front, and `base_model.model.` where
//! the adapter wraps the model's layers, as BEFT does.

use std::path::Path;

use burn::tensor::{TensorData, backend::Backend};
use burn_peft::{Head, HeadKind, ModuleListing};
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
    /// What it reads and gives.
    pub kind: HeadKind,
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
            kind: head.kind(),
            weight: tensor(weight),
            bias: bias.map(tensor),
        }
    }

    /// The number of values.
    pub fn num_values(&self) -> usize {
        let bias = self.bias.as_ref().map_or(0, |bias| bias.values().len());
        self.weight.values().len() + bias
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
        let (layout, [weight, bias]) = self.head_layout()?;
        Some(HeadTensors {
            kind: layout.kind,
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
                // A weight without columns may claim any number of rows.
                let has_classes = |head: &HeadTensors| {
                    head.kind != HeadKind::Span && !head.weight.values().is_empty()
                };
                let head = self.head().filter(has_classes);
                let outputs = head.map_or(0, |head| head.outputs());
                (0..outputs).map(|class| format!("LABEL_{class}")).collect()
            }
        }
    }

    /// The same adapter with a head, under the names that PEFT has for both.
    ///
    /// # Panics
    /// If the adapter has a head already.
    #[must_use]
    pub fn with_head(mut self, head: HeadTensors) -> Self {
        assert!(self.head_layout().is_none(), "an adapter has one head");
        self.config = self.config.with_task(TaskType::of(head.kind));
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

    /// This project's name of the method, as on the command line.
    pub fn method_name(&self) -> &'static str {
        match self.is_linear_probe() {
            true => "linear-probe",
            false => self.config.method.name(),
        }
    }

    /// Whether the head is all that was trained: it stands beside biases that are all zero.
    fn is_linear_probe(&self) -> bool {
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
        problems.extend(
            task.into_iter()
                .flat_map(|task| task.problems(Some(outputs))),
        );
        expected.insert(weight, vec![vec![outputs, base.hidden_size]]);
        if layout.kind.has_bias() {
            expected.insert(bias, vec![vec![outputs]]);
        }
    }

    /// Says that a head would be lost in this form.
    ///
    /// # Errors
    /// [`Error::HasHead`].
    pub fn refuse_head(&self, form: &'static str, path: &Path) -> Result<(), Error> {
        match self
            .config
            .task_type
            .filter(|task| task.head_kind().is_some())
        {
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
            Some(HeadTensors { weight, bias, .. }) if weight.shape().len() == 2 => {
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
    let data =
        |tensor: &AdapterTensor| TensorData::new(tensor.values().to_vec(), tensor.shape().to_vec());
    Ok(folder.head().map(|head| {
        let bias = head.bias.as_ref().map(data);
        Head::from_data(head.kind, data(&head.weight), bias, device)
    }))
}

#[cfg(test)]
mod tests {
    use burn_flex::Flex;
    use burn_peft::NoAdapter;

    use super::*;
    use crate::test_support::{base, folder};
    use crate::{
        BeftOptions, PROMPT_EMBEDDINGS, PromptTuningOptions, TargetModules, TaskOptions,
        VirtualTokenOptions,
    };

    /// A prompt for `task` with head tensors of these names and shapes.
    fn prompt(task: TaskType, tensors: &[(&str, &[usize])]) -> AdapterFolder {
        let tokens = VirtualTokenOptions::prompt(3, &base());
        let method = MethodOptions::PromptTuning(PromptTuningOptions::new(tokens));
        let all = [&[(PROMPT_EMBEDDINGS, &[3, 24][..])], tensors].concat();
        let mut folder = folder(method, &all);
        folder.config = folder.config.with_task(task);
        folder
    }

    fn zeros(outputs: usize, kind: HeadKind) -> HeadTensors {
        HeadTensors {
            kind,
            weight: AdapterTensor::new([outputs, 24], vec![0.0; outputs * 24]),
            bias: kind
                .has_bias()
                .then(|| AdapterTensor::new([outputs], vec![0.0; outputs])),
        }
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

    const SCORE: &str = "base_model.score.weight";
    const SCORE_BIAS: &str = "base_model.score.bias";
    const QA: &str = "base_model.qa_outputs.weight";
    const QA_BIAS: &str = "base_model.qa_outputs.bias";

    #[test]
    fn a_head_for_classes_has_any_number_of_rows() {
        for rows in [1, 3, 77] {
            let head = prompt(TaskType::SeqCls, &[(SCORE, &[rows, 24])]);
            assert!(problems(&head).is_empty());
            assert_eq!(head.head().unwrap().outputs(), rows);
            let tensors: [(&str, &[usize]); 2] = [(SCORE, &[rows, 24]), (SCORE_BIAS, &[rows])];
            assert!(problems(&prompt(TaskType::TokenCls, &tensors)).is_empty());
        }
        let tensors: [(&str, &[usize]); 2] = [(QA, &[2, 24]), (QA_BIAS, &[2])];
        assert!(problems(&prompt(TaskType::QuestionAns, &tensors)).is_empty());
    }

    #[test]
    fn what_does_not_fit_of_a_head_is_named() {
        let name = |text: &str| text.replace("SCORE", SCORE).replace("QA", QA);
        type Tensors = [(&'static str, &'static [usize])];
        let cases: [(TaskType, &Tensors, &[&str]); 8] = [
            (
                TaskType::SeqCls,
                &[],
                &["tensor `SCORE` is missing, expected with shape [1, 24]"],
            ),
            (
                TaskType::SeqCls,
                &[(SCORE, &[3, 32])],
                &["tensor `SCORE` has shape [3, 32], expected [3, 24]"],
            ),
            (
                TaskType::SeqCls,
                &[(SCORE, &[0, 24])],
                &["tensor `SCORE` has shape [0, 24], expected [1, 24]"],
            ),
            (
                TaskType::SeqCls,
                &[(SCORE, &[24])],
                &["tensor `SCORE` has shape [24], expected [24, 24]"],
            ),
            (
                TaskType::SeqCls,
                &[(SCORE, &[3, 24]), (SCORE_BIAS, &[3])],
                &["tensor `base_model.score.bias` [3] is unexpected"],
            ),
            (
                TaskType::TokenCls,
                &[(SCORE, &[3, 24]), (SCORE_BIAS, &[4])],
                &["tensor `base_model.score.bias` has shape [4], expected [3]"],
            ),
            (
                TaskType::QuestionAns,
                &[(QA, &[3, 24])],
                &[
                    "tensor `QA` has shape [3, 24], expected [2, 24]",
                    "tensor `base_model.qa_outputs.bias` is missing, expected with shape [2]",
                ],
            ),
            (
                TaskType::CausalLm,
                &[(SCORE, &[3, 24])],
                &["tensor `SCORE` [3, 24] is unexpected"],
            ),
        ];
        for (task, tensors, expected) in cases {
            let expected: Vec<_> = expected.iter().map(|line| name(line)).collect();
            assert_eq!(problems(&prompt(task, tensors)), expected);
        }
    }

    #[test]
    fn labels_are_named_or_numbered() {
        let mut folder = prompt(TaskType::SeqCls, &[(SCORE, &[2, 24])]);
        assert_eq!(folder.labels(), ["LABEL_0", "LABEL_1"]);
        let labels = |names: &[&str]| {
            Some(TaskOptions {
                labels: names.iter().map(|name| (*name).into()).collect(),
                ..TaskOptions::default()
            })
        };
        folder.config.task = labels(&["bad", "good"]);
        assert_eq!(folder.labels(), ["bad", "good"]);
        assert!(problems(&folder).is_empty());
        folder.config.task = labels(&["bad", "good", "so so"]);
        assert_eq!(
            problems(&folder),
            ["`burn_peft_task.labels` is a list of 3, expected 2, one for each output of the head"]
        );
        let tensors: [(&str, &[usize]); 2] = [(QA, &[2, 24]), (QA_BIAS, &[2])];
        assert!(prompt(TaskType::QuestionAns, &tensors).labels().is_empty());
        assert!(prompt(TaskType::CausalLm, &[]).labels().is_empty());
        let endless = prompt(TaskType::SeqCls, &[(SCORE, &[usize::MAX, 0])]);
        assert!(endless.labels().is_empty() && !problems(&endless).is_empty());
    }

    #[test]
    fn a_head_alone_stands_beside_biases_of_zero() {
        let nothing = NoAdapter::<Flex>::default();
        for (kind, backbone) in [(HeadKind::Token, "model"), (HeadKind::Span, "transformer")] {
            let head = Head::init(kind, [2, 24], 0, &Default::default());
            let folder =
                AdapterFolder::from_model(&nothing, Some(&head), &base(), None, MethodOptions::of)
                    .unwrap();
            assert!(problems(&folder).is_empty());
            assert_eq!(folder.method_name(), "linear-probe");
            assert_eq!(folder.head(), Some(HeadTensors::of(&head)));
            let first = format!("base_model.model.{backbone}.layers.0.self_attn.v_proj.beft_bias");
            assert_eq!(folder.tensors.get(&first).unwrap().values(), [0.0; 12]);
            assert_eq!(folder.tensors.len(), 4);
        }
    }

    #[test]
    fn layers_have_another_name_in_a_model_for_questions() {
        let path = "model.layers.1.self_attn.v_proj";
        let targets = TargetModules::Names(vec!["k_proj".into(), path.into()]);
        let method = MethodOptions::Beft(BeftOptions::new(targets));
        let name = |path: &str| format!("base_model.model.{path}.beft_bias");
        let keys = [0, 1].map(|layer| name(&format!("model.layers.{layer}.self_attn.k_proj")));
        let tensors: [(&str, &[usize]); 3] = [
            (&keys[0], &[1, 12]),
            (&keys[1], &[1, 12]),
            (&name(path), &[1, 12]),
        ];
        let causal = folder(method, &tensors);
        let folder = causal.clone().with_head(zeros(2, HeadKind::Span));
        assert!(problems(&folder).is_empty());
        assert_eq!(folder.biases().len(), 3);
        assert!(folder.method_name() == "linear-probe" && causal.method_name() == "bitfit");
        let renamed = name("transformer.layers.1.self_attn.v_proj");
        assert!(folder.tensors.get(&renamed).is_some());
        let MethodOptions::Beft(options) = &folder.config.method else {
            panic!("{folder:?}")
        };
        let expected = ["k_proj", "transformer.layers.1.self_attn.v_proj"];
        let expected = TargetModules::Names(expected.map(String::from).to_vec());
        assert_eq!(options.target_modules, expected);
        // The names of one model are none of the other's.
        let kept = causal.with_head(zeros(2, HeadKind::Sequence));
        assert!(problems(&kept).is_empty());
        let mut wrong = folder;
        wrong.config.task_type = Some(TaskType::SeqCls);
        assert!(problems(&wrong).len() > 3);
    }

    #[test]
    fn a_head_is_listed_last() {
        let tensors: [(&str, &[usize]); 2] = [(SCORE, &[5, 24]), (SCORE_BIAS, &[5])];
        let folder = prompt(TaskType::TokenCls, &tensors);
        let modules = folder.modules();
        assert_eq!(modules.num_parameters(), folder.tensors.num_values());
        assert_eq!(
            modules.to_string(),
            "PromptEmbedding(\n  (embedding): Embedding(3, 24)  # weight [3, 24]\n  \
             (score): Linear(in_features=24, out_features=5, bias=True)  # weight [5, 24], bias [5]\n)\n"
        );
        // One of another shape is named as it stands.
        let odd = prompt(TaskType::SeqCls, &[(SCORE, &[24])]);
        assert!(odd.modules().to_string().contains(SCORE));
        assert_eq!(odd.modules().num_parameters(), odd.tensors.num_values());
    }

    #[test]
    fn no_form_drops_a_head() {
        let folder = prompt(TaskType::SeqCls, &[(SCORE, &[2, 24])]);
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("prompt_embeds.safetensors");
        let error = folder.save_prompt_embeds(&file, Path::new("a"));
        assert_eq!(
            error.unwrap_err().to_string(),
            "a: the adapter has a head for SEQ_CLS, and a bare prompt has no place for it yet; use the folder as it is"
        );
        assert!(!file.exists());
    }
}
