"""Public benchmarks: where their rows are, what is asked of them, and how answers are scored, twice.

Every benchmark is a file here with two scorers as plain functions: `lmms`, which gives what lmms-eval 0.7 gives, and
`strict`, which mends what is wrong with that. Both are `(output, answers, facts=None) -> score in [0, 1]`; where a score
is no mean over samples, `lmms_totals` and `strict_totals` are `(outputs, answers, facts) -> (rows) -> {name: score}`.
"""
