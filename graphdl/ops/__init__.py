"""The operations of a graph, one record each, by family; `table` lists them all."""
