"""Re-ranking: a multimodal language model reads a query with a candidate, and says whether they match.

AuroLA (arXiv 2602.18010) asks for yes or no, in both directions.  The candidates are the best of any retriever.
"""
