# What the platform's Consul token may do, and no more.

# Sites: read where they are and how healthy; never write, so that nobody makes a site with our token.
service "serai-site" {
  policy = "read"
}
# Only where sites are found as plain Nomad servers.
service "nomad" {
  policy = "read"
}
# Health answers leave out nodes that may not be read.
node_prefix "" {
  policy = "read"
}

# Our own services: register ourselves, find each other. Nobody else may write these names:
# whoever answers there is sent the services' secret.
service_prefix "serai-" {
  policy = "write"
}
# Look up at our own agent what it has registered of us.
agent_prefix "" {
  policy = "read"
}
