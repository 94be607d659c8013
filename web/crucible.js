import { app } from "/scripts/app.js";
import { api } from "/scripts/api.js";

app.registerExtension({
    name: "crucible.loraSaved",
    setup() {
        api.addEventListener("crucible.lora_saved", ({ detail }) => {
            app.refreshComboInNodes();
            app.extensionManager.toast.add({
                severity: "success",
                summary: "LoRA saved",
                detail: `${detail.lora_name} is in output/loras. You can now choose it in any node that loads LoRAs.`,
                life: 8000,
            });
        });
    },
});
