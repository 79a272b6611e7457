# A site's operator may register the site, and nothing else.
service "serai-site" {
  policy = "write"
}
