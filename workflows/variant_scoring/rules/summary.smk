rule summary:
    """What became of all inputs: counts by status, quantiles of every score."""
    input:
        vcfs=expand(f"{RESULTS}/scored/{{name}}.vcf.gz", name=VCFS),
        script=workflow.source_path("../scripts/summarise.py"),
    output:
        table=report(f"{RESULTS}/summary.tsv", caption="../report/summary.rst", category="Summary"),
        json=f"{RESULTS}/summary.json",
    log:
        f"{RESULTS}/logs/summary.log",
    benchmark:
        f"{RESULTS}/benchmarks/summary.tsv"
    params:
        quantiles=" ".join(map(str, config["summary"]["quantiles"])),
    threads: 1
    resources:
        mem_mb=1000,
        runtime=30,
    conda:
        "../envs/genossm.yaml"
    shell:
        "python {input.script:q} {input.vcfs:q} --quantiles {params.quantiles} "
        "--table {output.table:q} --json {output.json:q} > {log:q} 2>&1"
