rule score:
    """The records of one file as they came, each ALT allele with its scores or with the reason why it has none."""
    input:
        vcf=lambda wildcards: VCFS[wildcards.name],
        genome=STORE,
        model=MODEL_FILES,
    output:
        vcf=report(
            f"{RESULTS}/scored/{{name}}.vcf.gz",
            caption="../report/scored.rst",
            category="Scored files",
            labels={"input": "{name}"},
        ),
        counts=f"{RESULTS}/scored/{{name}}.json",
    log:
        f"{RESULTS}/logs/score/{{name}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/score/{{name}}.tsv"
    params:
        model=model_of,
        options=score_options(config["score"]),
    threads: 2
    resources:
        mem_mb=4000,
        runtime=240,
        gpu=int(config["score"]["device"].startswith("cuda")),
    conda:
        "../envs/genossm.yaml"
    # An index of the file that was there before would be read for this one. A journal of another run (exit code 4) was
    # left before the change that this job is for: nothing in it is of use.
    shell:
        "rm -f {output.vcf:q}.tbi {output.vcf:q}.csi; "
        "export OMP_NUM_THREADS={threads} NUMBA_NUM_THREADS={threads}; "
        "score() {{ genossm score $1 -f {input.genome:q} -m {params.model:q} {params.options} {input.vcf:q} "
        "-o {output.vcf:q} --summary {output.counts:q}; }}; "
        "(score --resume || {{ code=$?; [ $code -eq 4 ] || exit $code; score --force; }}) > {log:q} 2>&1"
