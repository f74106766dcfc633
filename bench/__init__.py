"""graphdl beside its peers, in one run: `python -m bench` lists the benchmarks and runs one.

- `cases`: what a benchmark is made of: cases, contestants' builders, targets
- `functions`: a function as the users of each library write it, and what is asked of it
- `training`: a training step of any loss in each library
- `floors`: what nobody can go below
- `peers`: the contestants, and how each is told its threads
- `worker`: one process a contestant: builds, compares, times
- `harness`: drives the workers in alternating rounds
- `report`: the table, the JSON file, the picture
- `machine`: what the figures were measured on
- `pointwise`, `reduce`, `rows`, ...: the benchmarks, one file a question
  (`first_result`: the process that `compile` times; `starts`: its programs)
"""
