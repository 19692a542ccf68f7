  instance, deployment, engine, model, dp_rank, role, region, cluster, version, pod, node, recording
