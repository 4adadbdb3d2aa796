"""kvorum beside other stores, all freshly started on one machine in one run: ``python -m benchmarks.compare``.

``load`` asks and measures, in the process of ``asker``; ``systems`` starts what is asked; ``dialects`` says in each one's words what ``workloads``
names. ``side_by_side`` makes a table of pairs, ``portrait`` looks at one system alone (connections, latencies, a killed leader), ``report`` and
``svg`` write it down.
"""
