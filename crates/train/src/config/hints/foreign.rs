//! What other programs call things.

use toml::Value;

/// Keys that are read under a second name, as `(section, second name, key)`. transformers 5.23 renamed both.
pub(in crate::config) const SECOND_NAMES: [(&str, &str, &str); 2] = [
    (
        "train",
        "activation_checkpointing",
        "gradient_checkpointing",
    ),
    ("train", "train_sampling_strategy", "group_by_length"),
];

/// The value of a key that was given under its second name.
pub(in crate::config) fn translate(second: &str, value: Value) -> Result<Value, String> {
    match (second, value.as_str()) {
        ("train_sampling_strategy", Some("random")) => Ok(false.into()),
        ("train_sampling_strategy", Some("group_by_length")) => Ok(true.into()),
        ("train_sampling_strategy", _) => Err(format!(
            "unknown value {value}, expected \"random\" or \"group_by_length\""
        )),
        _ => Ok(value),
    }
}

/// A key, or a flag of `train`, and what it is called by transformers and PEFT (also in older versions), TRL, axolotl,
/// LLaMA-Factory, mlx-lm, Lightning and the codes of the papers.
pub(super) const KEYS: &[(&str, &str)] = &[
    (
        "model.path",
        "base_model base_model_name_or_path model_id model_name model_name_or_path model_path \
         name_or_path pretrained_model_name_or_path",
    ),
    ("model.revision", "base_model_revision model_revision"),
    (
        "model.dtype",
        "bf16 bfloat16 compute_dtype float16 fp16 infer_dtype mixed_precision model_dtype precision \
         pure_bf16 torch_dtype",
    ),
    (
        "method.type",
        "adapter finetuning_type peft_method peft_type tuner_type",
    ),
    (
        "method.num_virtual_tokens",
        "n_prompt_tokens n_tokens num_prefix_tokens num_soft_tokens pre_seq_len prefix_len prefix_length \
         prompt_len prompt_length prompt_tuning_num_tokens soft_prompt_length",
    ),
    (
        "method.encoder_hidden_size",
        "mid_dim prefix_hidden_size prompt_encoder_hidden_size",
    ),
    ("method.encoder_num_layers", "prompt_encoder_num_layers"),
    (
        "method.encoder_reparameterization_type",
        "prompt_encoder_type reparameterization_type",
    ),
    (
        "method.prefix_projection",
        "prefix_reparameterization use_prefix_projection",
    ),
    (
        "method.prompt_tuning_init_text",
        "init_text prompt_init_text",
    ),
    (
        "method.init_from",
        "adapter_name_or_path lora_model_dir resume_adapter_file",
    ),
    ("task.type", "task_name task_type"),
    (
        "task.labels",
        "class_names classes id2label label2id label_list",
    ),
    (
        "data.train",
        "data_files data_path dataset dataset_name dataset_path datasets train_data train_dataset \
         train_file train_files train_path",
    ),
    (
        "data.valid",
        "dev_file eval_data eval_dataset eval_file test_datasets val_data val_file valid_file validation \
         validation_data validation_file validation_path",
    ),
    ("data.test", "test_data test_dataset test_file test_path"),
    (
        "data.validation_split",
        "dev_size eval_ratio eval_split_size test_size val_ratio val_set_size val_size val_split \
         validation_fraction validation_ratio validation_size",
    ),
    (
        "data.columns",
        "column_mapping column_names dataset_columns dataset_text_field field_mapping text_column text_field",
    ),
    (
        "data.supervise",
        "assistant_only_loss completion_only_loss mask_history mask_prompt roles_to_train train_on_input \
         train_on_inputs train_on_prompt train_on_responses_only",
    ),
    (
        "data.excess_length_strategy",
        "overlength_strategy truncation truncation_mode truncation_strategy",
    ),
    (
        "data.max_length",
        "block_size context_length cutoff_len max_input_length max_len max_seq_len max_seq_length \
         max_sequence_length max_source_length model_max_length seq_len seq_length sequence_len \
         sequence_length",
    ),
    (
        "train.per_device_train_batch_size",
        "batch_size micro_batch_size per_gpu_train_batch_size train_batch_size",
    ),
    (
        "train.per_device_eval_batch_size",
        "eval_batch_size per_gpu_eval_batch_size val_batch_size",
    ),
    (
        "train.gradient_accumulation_steps",
        "accumulate_grad_batches accumulation_steps grad_acc_steps grad_accum grad_accum_steps \
         grad_accumulation_steps gradient_accumulation",
    ),
    (
        "train.num_train_epochs",
        "epochs max_epochs n_epochs num_epochs num_training_epochs train_epochs",
    ),
    (
        "train.max_steps",
        "iters max_iters max_train_steps n_steps num_steps num_train_steps num_training_steps steps \
         total_steps train_steps training_steps",
    ),
    (
        "train.learning_rate",
        "base_lr lr max_learning_rate max_lr peak_lr rate",
    ),
    (
        "train.head_learning_rate",
        "classifier_learning_rate classifier_lr head_lr",
    ),
    (
        "train.lr_scheduler_type",
        "lr_decay_style lr_schedule lr_scheduler schedule scheduler scheduler_type",
    ),
    ("train.warmup_ratio", "warmup_fraction warmup_proportion"),
    (
        "train.warmup_steps",
        "lr_warmup_steps num_warmup_steps warmup warmup_iters",
    ),
    ("train.weight_decay", "wd"),
    (
        "train.max_grad_norm",
        "clip_grad clip_grad_norm grad_clip gradient_clip gradient_clip_val gradient_clipping max_norm",
    ),
    ("train.adam_epsilon", "adam_eps eps epsilon"),
    (
        "train.logging_steps",
        "log_every log_every_n_steps log_interval log_steps logging_interval steps_per_report",
    ),
    ("train.eval_strategy", "evaluation_strategy"),
    (
        "train.eval_steps",
        "eval_every eval_every_n_steps eval_interval evaluation_steps steps_per_eval val_check_interval \
         val_steps",
    ),
    (
        "train.save_steps",
        "checkpoint_interval checkpoint_steps checkpointing_steps save_every save_every_n_steps \
         save_interval",
    ),
    (
        "train.save_total_limit",
        "checkpoints_total_limit keep_checkpoints keep_last_n_checkpoints max_checkpoints max_to_keep",
    ),
    (
        "train.load_best_model_at_end",
        "keep_best load_best load_best_model save_best",
    ),
    (
        "train.metric_for_best_model",
        "best_metric early_stopping_metric metric monitor",
    ),
    (
        "train.early_stopping_patience",
        "early_stop_patience early_stopping early_stopping_rounds patience",
    ),
    (
        "train.early_stopping_threshold",
        "early_stop_threshold early_stopping_min_delta min_delta",
    ),
    (
        "train.seed",
        "manual_seed random_seed random_state rng_seed",
    ),
    ("train.data_seed", "shuffle_seed"),
    (
        "train.predict_with_generate",
        "eval_with_generate generate_during_eval",
    ),
    (
        "train.gradient_checkpointing",
        "checkpoint_activations grad_checkpoint gradient_checkpointing_enable recompute \
         use_gradient_checkpointing",
    ),
    ("train.optim", "optim_type optimizer optimizer_type"),
    (
        "output.dir",
        "adapter_path out_dir output_dir output_path save_dir save_path",
    ),
    // No keys, but flags of `train`.
    (
        "--resume",
        "auto_resume_from_checkpoints resume resume_from_checkpoint",
    ),
    ("--backend", "device no_cuda use_cpu"),
];

/// A section, and what others call it.
pub(super) const SECTIONS: [(&str, &str); 4] = [
    (
        "train",
        "trainer training training_args training_arguments optimizer optim",
    ),
    ("method", "peft peft_config tuner"),
    ("model", "base base_model"),
    ("output", "out save"),
];

/// The first of a row whose names have this one.
pub(super) fn target_of(
    name: &str,
    table: &'static [(&'static str, &'static str)],
) -> Option<&'static str> {
    let row = table
        .iter()
        .find(|(_, names)| names.split(' ').any(|known| known == name));
    row.map(|(target, _)| *target)
}
