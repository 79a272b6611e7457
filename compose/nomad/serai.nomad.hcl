# One service of the platform on Nomad: `nomad job run -var service=gateway -var image=... serai.nomad.hcl`, and so for
# auth, scheduler and monitor. Needs the variables of README.md at nomad/jobs/serai-<service>.
#
# gateway: put a proxy with TLS before its copies. scheduler, monitor: one copy leads, another takes over within 15 s.
# auth: the only holder of the platform's private key; give its database and its variables to nobody else.
variable "service" {
  type        = string
  description = "auth, gateway, monitor or scheduler."

  validation {
    condition     = contains(["auth", "gateway", "monitor", "scheduler"], var.service)
    error_message = "The service is auth, gateway, monitor or scheduler."
  }
}

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

locals {
  # What a service is told from its own variables: secrets by the names of their settings, and files.
  common_secrets = {
    SERAI_SERVICE_KEY   = "service_key"
    SERAI_SERVICE_KEYS  = "service_keys"
    SERAI_CONSUL__TOKEN = "consul_token"
    SERAI_DATABASE_URL  = "database_url"
  }
  secrets = {
    auth = { SERAI_AUTH_KEY_SECRET = "key_secret", SERAI_AUTH_SECRETS_KEY = "secrets_key" }
    gateway = {
      SERAI_AMQP_URL                           = "amqp_url"
      SERAI_GATEWAY_SUBSCRIBERS_AMQP_URL       = "subscribers_amqp_url"
      SERAI_GATEWAY_SUBSCRIBERS_MANAGEMENT_URL = "subscribers_management_url"
    }
    monitor   = { SERAI_AMQP_URL = "amqp_url" }
    scheduler = { SERAI_AMQP_URL = "amqp_url" }
  }
  files = {
    auth      = { issuers = "SERAI_AUTH_ISSUERS_FILE" }
    gateway   = {}
    monitor   = { sites = "SERAI_SITES" }
    scheduler = { sites = "SERAI_SITES" }
  }
  settings = {
    SERAI_HOST            = "0.0.0.0"
    SERAI_PORT            = "8080"
    SERAI_ADVERTISE       = "http://${NOMAD_ADDR_http}"
    SERAI_INSTANCE        = "${var.service}-${NOMAD_ALLOC_ID}"
    SERAI_AMQP_DECLARE    = "false"
    SERAI_CONSUL__ADDRESS = var.consul_address
  }
}

job "serai" {
  id          = "serai-${var.service}"
  name        = "serai-${var.service}"
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

  group "serai" {
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
      name     = "serai-${var.service}"
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

    task "serai" {
      driver         = "docker"
      user           = "10001:10001"
      kill_timeout   = "20s"
      shutdown_delay = "2s"

      config {
        image           = var.image
        args            = [var.service]
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

      env = merge(local.settings, { for name, setting in local.files[var.service] : setting => "${NOMAD_TASK_DIR}/${name}.yaml" })

      # Only this task can read them: a job's variables are its own.
      template {
        destination = "${NOMAD_SECRETS_DIR}/serai.env"
        env         = true
        data = join("\n", concat(
          ["{{ with nomadVar \"nomad/jobs/serai-${var.service}\" }}"],
          [for setting, name in merge(local.common_secrets, local.secrets[var.service]) : "${setting}={{ .${name} }}"],
          ["{{ end }}"],
        ))
      }

      dynamic "template" {
        for_each = keys(local.files[var.service])

        content {
          destination = "${NOMAD_TASK_DIR}/${template.value}.yaml"
          change_mode = "restart"
          data        = "{{ with nomadVar \"nomad/jobs/serai-${var.service}\" }}{{ .${template.value} }}{{ end }}"
        }
      }

      resources {
        cpu        = 500
        memory     = 256
        memory_max = 512
      }
    }
  }
}
