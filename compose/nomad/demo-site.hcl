# The agent of profile `site`: server and client in one, everything forgotten with the container. Jobs run as its own
# unprivileged user, side by side, with what the image has (a shell): to try things, not to work with.
region    = "demo"
name      = "demo"
data_dir  = "/nomad/data" # mounts of allocations go beside it
bind_addr = "0.0.0.0"

server {
  enabled          = true
  bootstrap_expect = 1
}

client {
  enabled = true
  options = {
    "driver.allowlist"     = "raw_exec"
    "fingerprint.denylist" = "env_aws,env_azure,env_digitalocean,env_gce,consul,vault"
  }
}

plugin "raw_exec" {
  config {
    enabled = true
  }
}

disable_update_check = true
