# One Consul server for this platform. Tokens are given on its command line (compose.yaml).
server           = true
bootstrap_expect = 1
node_name        = "serai-consul"
data_dir         = "/consul/data"
client_addr      = "0.0.0.0"
bind_addr        = "{{ GetPrivateIP }}"

ui_config {
  enabled = false
}
ports {
  grpc     = -1
  grpc_tls = -1
  dns      = -1
}
acl {
  enabled                  = true
  default_policy           = "deny"
  down_policy              = "extend-cache"
  enable_token_persistence = false
}
disable_update_check = true
