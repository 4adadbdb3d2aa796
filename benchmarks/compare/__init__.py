"""kvorum beside other stores, all freshly started on one machine in one run: ``python -m benchmarks.compare``.

``load`` asks and measures, ``systems`` starts what is asked, ``dialects`` says in each one's words what ``workloads`` names. Four parts use them:
``side_by_side`` (a table), ``latency`` (its distribution under a fixed rate), ``connections`` (throughput), ``outage`` (a killed leader).
"""
