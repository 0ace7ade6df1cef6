rule genome_store:
    """Encode the reference once; every scoring job reads its windows from the store."""
    input:
        reference=config["reference"]["path"],
        aliases=config["reference"]["aliases"] or [],
    output:
        directory(f"{RESULTS}/genome/reference.zarr"),
    log:
        f"{RESULTS}/logs/genome_store.log",
    benchmark:
        f"{RESULTS}/benchmarks/genome_store.tsv"
    params:
        options=store_options(config["reference"]),
    threads: 1
    resources:
        mem_mb=2000,
        runtime=60,
    conda:
        "../envs/genossm.yaml"
    shell:
        "genossm genome build {input.reference:q} -o {output:q} {params.options} > {log:q} 2>&1"
