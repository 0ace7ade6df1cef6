"""Keys of config.json that every configuration of transformers carries and that change nothing in what is computed."""

from __future__ import annotations

INERT = frozenset(
    {
        "architectures", "auto_map", "dtype", "torch_dtype", "transformers_version", "_name_or_path", "name_or_path",
        "_commit_hash", "_attn_implementation_autoset", "attn_implementation", "experts_implementation", "bos_token_id",
        "eos_token_id", "pad_token_id", "sep_token_id", "decoder_start_token_id", "tokenizer_class", "return_dict",
        "output_hidden_states", "output_attentions", "torchscript", "use_bfloat16", "chunk_size_feed_forward",
        "is_encoder_decoder", "is_decoder", "cross_attention_hidden_size", "add_cross_attention", "tie_encoder_decoder",
        "pruned_heads", "finetuning_task", "task_specific_params", "problem_type", "prefix", "id2label", "label2id",
        "tf_legacy_loss",
    }
)  # fmt: skip
