# The auth on Nomad. The only holder of a private key: give its database and its variables to nobody else.
# Needs the variables of README.md at nomad/jobs/serai-auth; run it with `nomad job run -var image=... auth.nomad.hcl`.
variable "image" {
  type        = string
  description = "The platform's image, with its tag or digest."
}

variable "datacenters" {
  type    = list(string)
  default = ["*"]
}

variable "copies" {
  type    = number
  default = 2
}

variable "consul_address" {
  type        = string
  description = "Consul's agent as the containers reach it, as https://consul.example:8501."
}

job "serai-auth" {
  datacenters = var.datacenters
  type        = "service"

  update {
    max_parallel      = 1
    health_check      = "checks"
    min_healthy_time  = "10s"
    healthy_deadline  = "3m"
    progress_deadline = "10m"
    auto_revert       = true
  }

  group "auth" {
    count = var.copies

    constraint {
      distinct_hosts = true
    }

    network {
      port "http" {
        to = 8080
      }
    }

    service {
      provider = "nomad"
      name     = "serai-auth"
      port     = "http"

      # Ready: takes part. Not ready is no reason to restart: it waits for something else, and says for what.
      check {
        name     = "ready"
        type     = "http"
        path     = "/readyz"
        interval = "5s"
        timeout  = "4s"
      }

      check {
        name     = "alive"
        type     = "http"
        path     = "/healthz"
        interval = "10s"
        timeout  = "5s"

        check_restart {
          limit = 5
          grace = "60s"
        }
      }
    }

    restart {
      attempts = 5
      interval = "5m"
      delay    = "5s"
      mode     = "delay"
    }

    task "auth" {
      driver         = "docker"
      user           = "10001:10001"
      kill_timeout   = "20s"
      shutdown_delay = "2s"

      config {
        image           = var.image
        args            = ["auth"]
        ports           = ["http"]
        init            = true
        readonly_rootfs = true
        cap_drop        = ["all"]
        security_opt    = ["no-new-privileges"]
        pids_limit      = 256

        mount {
          type   = "tmpfs"
          target = "/tmp"

          tmpfs_options {
            size = 67108864
            mode = 1023
          }
        }
      }

      env {
        SERAI_HOST              = "0.0.0.0"
        SERAI_PORT              = "8080"
        SERAI_ADVERTISE         = "http://${NOMAD_ADDR_http}"
        SERAI_INSTANCE          = "auth-${NOMAD_ALLOC_ID}"
        SERAI_AUTH_ISSUERS_FILE = "${NOMAD_TASK_DIR}/issuers.yaml"
        SERAI_CONSUL__ADDRESS   = var.consul_address
      }

      # Only this task can read them: a job's variables are its own.
      template {
        destination = "${NOMAD_SECRETS_DIR}/serai.env"
        env         = true
        data        = <<-EOF
          {{- with nomadVar "nomad/jobs/serai-auth" }}
          SERAI_SERVICE_KEY={{ .service_key }}
          SERAI_SERVICE_KEYS={{ .service_keys }}
          SERAI_CONSUL__TOKEN={{ .consul_token }}
          SERAI_DATABASE_URL={{ .database_url }}
          SERAI_AUTH_KEY_SECRET={{ .key_secret }}
          {{- end }}
        EOF
      }

      template {
        destination = "${NOMAD_TASK_DIR}/issuers.yaml"
        change_mode = "restart"
        data        = "{{ with nomadVar \"nomad/jobs/serai-auth\" }}{{ .issuers }}{{ end }}"
      }

      resources {
        cpu        = 500
        memory     = 256
        memory_max = 512
      }
    }
  }
}
