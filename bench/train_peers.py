"""The other sides of bench/train.py: TRL's trainers and the plain Trainer of transformers, in the settings their manuals advise.

`trl`, `trainer`: rows as they come. `…-length`: rows of like length together. `trl-packed`: rows packed by best fit, several to a
sequence. `trl-flat`: the rows of a step in one sequence without padding. All train in fp32, without gradient checkpointing,
which TRL has on by default, and know the reference's log-probabilities beforehand (DPO).
"""

from __future__ import annotations

from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training
from train_rows import IGNORED, LABELS, PAD, Text
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    BitsAndBytesConfig,
    DataCollatorForSeq2Seq,
    DataCollatorWithPadding,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

Spec = dict[str, Any]


def build(spec: Spec, rows: list[Text], tokenizer: Any, clock: TrainerCallback) -> Any:
    """A trainer that is ready to train on the rows once, in their settings; its model is `trainer.model`."""
    maker = {"sft": _sft, "dpo": _dpo, "classify": _classify}[spec["objective"]]
    trainer = maker(spec, rows, tokenizer)
    trainer.add_callback(clock)
    return trainer


def _sft(spec: Spec, rows: list[Text], tokenizer: Any) -> Any:
    data = Dataset.from_list(
        [
            {
                "input_ids": row.prompt + row.answer,
                "labels": [IGNORED] * len(row.prompt) + row.answer,
                "length": len(row.prompt) + len(row.answer),
            }
            for row in rows
        ]
    )
    if spec["side"].startswith("trainer"):
        arguments = TrainingArguments(**_settings(spec))
        collator = DataCollatorForSeq2Seq(tokenizer, label_pad_token_id=IGNORED)
        data = data if spec["side"].endswith("length") else data.remove_columns("length")
        return Trainer(model=_with_lora(spec, _model(spec)), args=arguments, train_dataset=data, data_collator=collator)
    from trl import SFTConfig, SFTTrainer

    settings: Spec = _settings(spec) | {"max_length": spec["max_length"]}
    if spec["side"] == "trl-packed":
        # As many tokens a step as the others have, in sequences of the greatest length.
        mean = sum(data["length"]) / len(data)
        settings |= {"packing": True, "per_device_train_batch_size": max(1, round(spec["batch"] * mean / spec["max_length"]))}
    if spec["side"] == "trl-flat":
        settings |= {"padding_free": True, "max_length": None}
    if spec["side"] != "trl-length":
        data = data.remove_columns("length")
    return SFTTrainer(
        model=_model(spec),
        args=SFTConfig(**settings),
        train_dataset=data,
        processing_class=tokenizer,
        peft_config=_lora(spec),
    )


def _dpo(spec: Spec, rows: list[Text], tokenizer: Any) -> Any:
    from trl import DPOConfig, DPOTrainer

    class Tokenised(DPOTrainer):  # type: ignore[misc]
        """It takes texts alone, and would tokenise them; here are ids."""

        def _prepare_dataset(self, dataset: Any, *_: Any, **__: Any) -> Any:
            return dataset

    settings: Spec = _settings(spec) | {"precompute_ref_log_probs": True, "max_length": spec["max_length"], "beta": 0.1}
    settings["precompute_ref_batch_size"] = spec["batch"]
    pairs = [{"prompt_ids": row.prompt, "chosen_ids": row.answer, "rejected_ids": row.worse} for row in rows]
    if spec["side"] == "trl-length":
        for pair in pairs:
            pair["length"] = len(pair["prompt_ids"]) + max(len(pair["chosen_ids"]), len(pair["rejected_ids"]))
    return Tokenised(
        model=_model(spec),
        args=DPOConfig(**settings),
        train_dataset=Dataset.from_list(pairs),
        processing_class=tokenizer,
        peft_config=_lora(spec),
    )


def _classify(spec: Spec, rows: list[Text], tokenizer: Any) -> Any:
    data = [{"input_ids": row.prompt + row.answer, "labels": row.label} for row in rows]
    if spec["side"] == "trainer-length":
        data = [row | {"length": len(row["input_ids"])} for row in data]
    return Trainer(
        model=_with_lora(spec, _model(spec)),
        args=TrainingArguments(**_settings(spec)),
        train_dataset=Dataset.from_list(data),
        data_collator=DataCollatorWithPadding(tokenizer),
    )


def _settings(spec: Spec) -> Spec:
    on_gpu = bool(spec["gpu"])
    return {
        "output_dir": spec["folder"],
        "num_train_epochs": 1,
        "per_device_train_batch_size": spec["batch"],
        "learning_rate": spec["rate"],
        "lr_scheduler_type": "linear",
        "train_sampling_strategy": "group_by_length" if spec["side"].endswith("length") else "random",
        "gradient_checkpointing": spec["checkpointing"],
        "bf16": on_gpu,
        "use_cpu": not on_gpu,
        "dataloader_pin_memory": on_gpu,
        "logging_steps": 10,
        "save_strategy": "no",
        "eval_strategy": "no",
        "report_to": [],
        "disable_tqdm": True,
        "seed": spec["seed"],
    }


def _model(spec: Spec) -> Any:
    options: Spec = {"dtype": torch.bfloat16 if spec["gpu"] else torch.float32, "attn_implementation": spec["attention"]}
    if spec["tuner"] == "qlora":
        compute = torch.bfloat16 if spec["gpu"] else torch.float32
        options["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=compute
        )
    if spec["objective"] == "classify":
        return AutoModelForSequenceClassification.from_pretrained(spec["base"], num_labels=LABELS, pad_token_id=PAD, **options)
    return AutoModelForCausalLM.from_pretrained(spec["base"], **options)


def _lora(spec: Spec) -> LoraConfig | None:
    if spec["tuner"] == "full":
        return None
    kind = "SEQ_CLS" if spec["objective"] == "classify" else "CAUSAL_LM"
    return LoraConfig(r=spec["rank"], lora_alpha=2 * spec["rank"], target_modules="all-linear", task_type=kind)


def _with_lora(spec: Spec, model: Any) -> Any:
    if (config := _lora(spec)) is None:
        return model
    if spec["tuner"] == "qlora":
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=spec["checkpointing"])
    return get_peft_model(model, config)
