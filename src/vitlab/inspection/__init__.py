"""What a Vision Transformer has learned, as arrays (paper: section 4.5, App. D.7 and D.8)."""

from vitlab.inspection.attention import attention_distance, attention_maps, attention_rollout
from vitlab.inspection.embeddings import embedding_filters, position_similarity, token_similarity

__all__ = [
    "attention_distance",
    "attention_maps",
    "attention_rollout",
    "embedding_filters",
    "position_similarity",
    "token_similarity",
]
