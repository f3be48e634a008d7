"""Main input and outputs of each verb, and the groups of `--help` where one has many options."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

MAIN_INPUT: Mapping[str, str] = {
    "questions": "source",
    "sample": "questions",
    "label": "trajectories",
    "meta": "trajectories",
    "status": "store",
    "convert": "input",
    "validate": "input",
    "weigh": "trajectories",
    "train": "train_file",
    "score": "trajectories",
    "select": "questions",
    "evaluate": "trajectories",
    "benchmark": "benchmark",
    "compare": "results",
    "report": "results",
    "serve": "prm",
    "export": "model_name_or_path",
    "push": "model_name_or_path",
}
"""Verb -> the option that words without an option's name are values of."""

OUTPUTS: Mapping[str, Sequence[str]] = {
    **dict.fromkeys(("questions", "sample", "label", "weigh", "score", "export"), ("output",)),
    **dict.fromkeys(("evaluate", "compare", "report"), ("output",)),
    "convert": ("output", "output_questions", "output_trajectories"),
    "meta": ("output_questions", "output_trajectories"),
    "select": ("output", "candidates_output", "scores_output", "result"),
    "benchmark": ("output", "questions_output", "export"),
    "push": ("model_name_or_path",),
    "demo": ("output_dir",),
}
"""Verb -> the options that name what it writes, and so locks. `train` locks its own: a dry run
writes nothing."""

_TRAIN = {
    "data": """train_file train_questions train_trajectories meta_file meta_questions
        meta_trajectories image_root max_image_pixels allow_remote_images skip_bad_images""",
    "model": """model_name_or_path use_peft lora_r lora_alpha head layout objective step_tag
        max_length lora_dropout lora_target_modules lora_vision""",
    "training": """preset max_steps learning_rate head_learning_rate per_device_train_batch_size
        gradient_accumulation_steps lower_loss seed lr_scheduler_type warmup_steps weight_decay
        max_grad_norm lr_step_size lr_gamma hard_threshold group_by_length""",
    "weights": """meta_optimizer meta_learning_rate unroll_steps meta_batch_questions
        meta_batch_candidates meta_loss weighting label_correction weights_file learn_weights
        meta_aggregation meta_warmup_steps meta_weight_decay estimator instance_weight_min
        instance_weight_max meta_gradient_at preconditioning momentum null_check null_check_runs""",
    "hardware": """dry_run device bf16 dtype gradient_checkpointing per_device_meta_batch_size
        dataloader_num_workers""",
    "output": """output_dir save_steps save_total_limit resume_from_checkpoint logging_steps
        report_to push_to_hub hub_model_id hub_private_repo""",
}
_LIMITS = "concurrency timeout_s max_attempts give_up_after_s"
_POLICY = {
    "policy": "model_name_or_path base_urls prompt temperature max_new_tokens seed answer_tokens",
    "local model": "per_device_batch_size device dtype",
    "served model": f"""api_key_env continuation max_n {_LIMITS} ask_again extra_body judge_model
        judge_urls""",
    "images": "image_root max_image_pixels allow_remote_images skip_bad_images",
    "store and budget": """store budget_tokens budget_cost prompt_token_price
        completion_token_price""",
}


def _split(groups: Mapping[str, str]) -> Mapping[str, Sequence[str]]:
    return {title: names.split() for title, names in groups.items()}


GROUPS: Mapping[str, Mapping[str, Sequence[str]]] = {
    "train": _split(_TRAIN),
    "score": _split({"served reward model": f"prm_urls prm_api_key_env {_LIMITS}"}),
    **dict.fromkeys(("sample", "label", "select"), _split(_POLICY)),
}
"""Verb -> title -> options, those that are rarely set last. Options that are not named come first,
under the title of the verb."""
