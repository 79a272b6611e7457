# What the Consul server itself needs to keep its own entry up to date.
node "serai-consul" {
  policy = "write"
}
service_prefix "" {
  policy = "read"
}
