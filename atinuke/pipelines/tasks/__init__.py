"""The benchmarks that come with Atinuke, one a file; see `atinuke.pipelines.task`."""
